"""HTTP without our resources: bodies, bounds, problems, the server."""
