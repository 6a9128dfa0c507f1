"""Statistics: their documents."""
