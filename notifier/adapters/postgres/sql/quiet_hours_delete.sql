-- Removes the quiet hours of a tenant.
-- Parameters: $1 tenant.
-- Returns: one row if there were any; listening processes are notified at the commit.
-- Repeating it changes nothing and returns no row.
WITH changed AS (
    DELETE FROM quiet_hours WHERE tenant = $1
    RETURNING starts_at || '-' || ends_at || ' ' || time_zone AS before
)
SELECT pg_notify('notifier_controls', ''), before FROM changed
