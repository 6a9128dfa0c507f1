-- Removes a tenant that has no keys and no notifications that wait or are being sent, with its quiet
-- hours and its pause.
-- Parameters: $1 name.
-- Returns: one row if there is such a tenant: its `note`, and whether it `has_keys` or is `busy`. It
-- was removed if neither is true.
WITH found AS (
    SELECT name, note, created_at, EXISTS (SELECT FROM keys WHERE tenant = $1) AS has_keys,
           EXISTS (SELECT FROM live l
                   CROSS JOIN LATERAL (SELECT tenant FROM notifications WHERE id = l.id LIMIT 1) n
                   WHERE n.tenant = $1) AS busy
    FROM tenants WHERE name = $1
), gone AS (
    DELETE FROM tenants WHERE name IN (SELECT name FROM found WHERE NOT has_keys AND NOT busy)
    RETURNING name
), quiet AS (
    DELETE FROM quiet_hours WHERE tenant IN (SELECT name FROM gone)
), resumed AS (
    DELETE FROM holds WHERE kind = 'tenant' AND name IN (SELECT name FROM gone)
)
SELECT * FROM found
