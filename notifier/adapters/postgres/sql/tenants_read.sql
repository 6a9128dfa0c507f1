-- Reads all tenants.
-- Parameters: none.
-- Returns: one row per tenant, by name.
SELECT name, note, senders, locale, topics::text, created_at FROM tenants ORDER BY name
