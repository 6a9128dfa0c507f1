"""`load`: submit many notifications at a pace, and say what became of them."""
