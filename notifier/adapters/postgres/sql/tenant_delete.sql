-- Removes a tenant that has no keys that hold, no schedules, no notifications that wait or are being
-- sent, and no operations that run, with its expired keys, its webhooks, its quiet hours and its pause.
-- Parameters: $1 name.
-- Returns: one row if there is such a tenant: its `note`, and whether it `has_keys`, `has_schedules` or
-- is `busy`. It was removed if none is true.
-- (Calls of its webhooks may wait: they fail when they are due, since their webhook is deleted.
-- No index has the tenant. Where many rows wait, the notifications since the oldest of them are read
-- once, not each by its id; where few wait, the planner reads only theirs.)
WITH found AS (
    SELECT name, note, created_at,
           EXISTS (SELECT FROM keys
                   WHERE tenant = $1 AND (expires_at IS NULL OR expires_at > now())) AS has_keys,
           EXISTS (SELECT FROM schedules WHERE tenant = $1) AS has_schedules,
           EXISTS (SELECT FROM live l JOIN notifications n USING (id)
                   WHERE n.tenant = $1 AND l.queue NOT LIKE 'webhook.%'
                     AND n.id >= (SELECT id FROM live ORDER BY id LIMIT 1))
               OR EXISTS (SELECT FROM operations WHERE tenant = $1 AND status = 'running') AS busy
    FROM tenants WHERE name = $1
), gone AS (
    DELETE FROM tenants WHERE name IN (
        SELECT name FROM found WHERE NOT (has_keys OR has_schedules OR busy))
    RETURNING name
), expired AS (
    DELETE FROM keys WHERE tenant IN (SELECT name FROM gone) RETURNING id
), unused AS (
    DELETE FROM key_rates WHERE key IN (SELECT id FROM expired)
       OR key IN (SELECT 'tenant/' || mode || '/' || name
                  FROM gone CROSS JOIN (VALUES ('live'), ('test')) AS m (mode))
), quiet AS (
    DELETE FROM quiet_hours WHERE tenant IN (SELECT name FROM gone)
), unhooked AS (
    DELETE FROM webhooks WHERE tenant IN (SELECT name FROM gone)
), resumed AS (
    DELETE FROM holds WHERE kind = 'tenant' AND name IN (SELECT name FROM gone)
)
SELECT * FROM found
