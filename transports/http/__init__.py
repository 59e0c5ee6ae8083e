"""The side of the clients: the ASGI app, and the server that carries it."""
