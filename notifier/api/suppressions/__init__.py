"""Suppressions in the API: their documents, and CSV files of them."""
