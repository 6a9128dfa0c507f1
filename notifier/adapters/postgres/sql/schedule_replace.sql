-- Replaces what a person decides of a schedule, unless another one of its tenant and mode is the
-- same. The caller holds the lock of schedules_lock.sql. A process that has an instant keeps it if
-- that stays.
-- Parameters: $1 id, $2 digest, $3 cron, $4 time zone, $5 notification, $6 needs, $7 blobs, $8 note,
-- $9 whether it is paused, $10 the next instant.
-- Returns: the row, if it was changed.
UPDATE schedules s SET
    digest = $2::uuid, cron = $3, time_zone = $4, notification = $5::bytea, needs = $6::text[],
    blobs = $7::bytea[], note = $8, paused = $9::boolean, next_at = $10::timestamptz,
    held_until = CASE WHEN next_at = $10::timestamptz THEN held_until END,
    begun_at = CASE WHEN next_at = $10::timestamptz THEN begun_at END
WHERE id = $1
  AND NOT EXISTS (SELECT FROM schedules other
                  WHERE other.tenant = s.tenant AND other.mode = s.mode AND other.digest = $2::uuid
                    AND other.id <> s.id)
RETURNING *
