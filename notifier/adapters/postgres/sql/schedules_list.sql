-- Reads the schedules of a tenant and mode, the oldest first, without their notifications.
-- Parameters: $1 tenant, $2 mode.
SELECT id, tenant, mode, cron, time_zone, note, paused, created_at, next_at, last_at,
       last_notification, last_problem, NULL::bytea AS notification
FROM schedules WHERE tenant = $1 AND mode = $2 ORDER BY id
