"""The HTTP API. Handlers reach the store through ports; every error becomes an RFC 9457 problem."""
