"""Self-hosted notification delivery engine."""
