"""Webhooks over HTTP: their documents, and the checks of what is asked."""
