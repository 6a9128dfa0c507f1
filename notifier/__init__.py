"""Self-hosted notification delivery engine."""

__version__ = "0.1.0"
