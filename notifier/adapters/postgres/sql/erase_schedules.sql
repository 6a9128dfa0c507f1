-- Deletes schedules of an erased recipient that have not been changed since they were read.
-- Parameters: $1 ids, $2 what each submits.
-- Returns: one row per deleted schedule.
DELETE FROM schedules s USING unnest($1::uuid[], $2::bytea[]) AS t (id, notification)
WHERE s.id = ANY ($1::uuid[]) AND s.id = t.id AND s.notification = t.notification
RETURNING s.id, s.tenant, s.cron, s.time_zone, s.paused
