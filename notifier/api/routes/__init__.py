"""The routes of the API: the table of them, and one module of handlers per resource."""
