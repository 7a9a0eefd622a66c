"""kept: durable execution for Python. Promises, kept."""

__version__ = "0.1.0"

__all__ = ["__version__"]
