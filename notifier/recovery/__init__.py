"""Repairs what a fault left behind: lost messages, orphans, unpublished, expired and old rows."""
