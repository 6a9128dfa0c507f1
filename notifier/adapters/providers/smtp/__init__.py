"""Email over SMTP (RFC 5321)."""
