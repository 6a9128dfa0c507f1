"""HTTP mechanisms that know no resource: bodies, limits, problems, the server."""
