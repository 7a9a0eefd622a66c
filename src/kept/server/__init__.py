"""Floor 6: the door: ASGI application, polling, authentication, metrics, limits on what may come in."""
