-- Reads all tenants.
-- Parameters: none.
-- Returns: one row per tenant, by name.
SELECT name, note, senders, created_at FROM tenants ORDER BY name
