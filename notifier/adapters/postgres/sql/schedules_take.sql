-- Takes schedules whose instant has come, for some time: no other process gets them meanwhile.
-- Parameters: $1 for how many seconds, $2 the fields of notifications that this version knows, $3 how
-- many at most.
-- Returns: one row per schedule, the earliest instant first; `begun_before` says since when it may
-- have been submitted by another process, or by an earlier try of this one.
WITH due AS (
    SELECT id, begun_at FROM schedules
    WHERE next_at <= now() AND (held_until IS NULL OR held_until <= now()) AND needs <@ $2::text[]
    ORDER BY next_at LIMIT $3
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE schedules s
    SET held_until = now() + $1 * interval '1 second', begun_at = coalesce(s.begun_at, now())
    FROM due WHERE s.id = due.id
    RETURNING s.id, tenant, mode, cron, time_zone, notification, next_at,
              due.begun_at AS begun_before, now() AS now
)
SELECT * FROM taken ORDER BY next_at, id
