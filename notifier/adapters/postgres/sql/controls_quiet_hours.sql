-- Reads the quiet hours of all tenants.
-- Parameters: none.
-- Returns: one row per tenant with quiet hours.
SELECT tenant, starts_at, ends_at, time_zone FROM quiet_hours ORDER BY tenant
