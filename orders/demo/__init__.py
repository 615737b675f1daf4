"""The demo: the same storm of requests without protection and with it, on a real server."""
