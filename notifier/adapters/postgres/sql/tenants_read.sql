-- Reads all tenants but the default one.
-- Parameters: none.
-- Returns: one row per tenant, by name.
SELECT name, note, created_at FROM tenants ORDER BY name
