"""nursling's transports: everything that touches a socket, a file or the environment."""
