"""Delivery of one notification: accept, relay to the broker, attempt."""
