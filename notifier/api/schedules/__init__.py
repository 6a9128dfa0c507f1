"""Schedules: their documents, what is checked of them, and what their runs submit."""
