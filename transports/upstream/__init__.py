"""The upstreams: HTTP APIs, and the demo model inside this process."""
