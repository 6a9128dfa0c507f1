"""What may hold a queue back: a pause, an open breaker, a provider that hangs."""
