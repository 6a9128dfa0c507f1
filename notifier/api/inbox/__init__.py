"""Inboxes as their users read them: documents and streams."""
