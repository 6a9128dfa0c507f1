"""Calls of webhooks: HTTP requests to URLs that callers choose, at public addresses only."""
