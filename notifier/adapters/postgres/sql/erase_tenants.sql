-- Reads the names of all tenants of which something may be stored.
SELECT name FROM tenants UNION SELECT name FROM deleted_tenants
