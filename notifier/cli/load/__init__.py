"""`load`: submits many notifications at a given rate and reports their delivery."""
