"""The HTTP API: thin handlers over the ports; every error is one problem of one table."""
