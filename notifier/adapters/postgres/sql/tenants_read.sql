-- Reads all tenants.
-- Parameters: none.
-- Returns: one row per tenant, by name.
SELECT name, note, senders, locale, topics::text, rate_per_s, created_at FROM tenants ORDER BY name
