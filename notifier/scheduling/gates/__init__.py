"""What stops a queue from sending although it has work: a pause, an open breaker, a hang limit."""
