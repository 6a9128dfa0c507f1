"""Repairs what a fault left behind: lost messages, orphans, expired and old rows."""
