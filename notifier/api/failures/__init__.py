"""Groups of failures: their documents."""
