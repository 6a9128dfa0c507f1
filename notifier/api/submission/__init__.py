"""A submit, from its bytes to a notification that can be stored."""
