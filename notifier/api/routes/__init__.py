"""The route table, and one module of handlers per resource."""
