-- Stores the quiet hours of a tenant.
-- Parameters: $1 tenant, $2 start, $3 end, $4 time zone.
-- Returns: one row, `before` the quiet hours of before (null: none); none if there is no such tenant.
-- Listening processes are notified at the commit.
-- Repeating it changes nothing.
WITH before AS (
    SELECT starts_at || '-' || ends_at || ' ' || time_zone AS text FROM quiet_hours WHERE tenant = $1
), changed AS (
    INSERT INTO quiet_hours (tenant, starts_at, ends_at, time_zone)
    SELECT $1, $2, $3, $4 WHERE $1 = '' OR EXISTS (SELECT FROM tenants WHERE name = $1)
    ON CONFLICT (tenant) DO UPDATE SET
        starts_at = excluded.starts_at, ends_at = excluded.ends_at, time_zone = excluded.time_zone
    RETURNING tenant
)
SELECT pg_notify('notifier_controls', ''), (SELECT text FROM before) AS before FROM changed
