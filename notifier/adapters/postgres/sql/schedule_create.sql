-- Stores a schedule, unless its tenant is unknown, has the maximum of schedules of its mode, or has
-- the same one. The caller holds the lock of schedules_lock.sql.
-- Parameters: $1 id, $2 tenant, $3 mode, $4 digest, $5 cron, $6 time zone, $7 notification,
-- $8 needs, $9 blobs, $10 note, $11 whether it is paused, $12 the next instant, $13 the maximum.
-- Returns: the stored row, and whether it `is_new`; none if it was not stored.
WITH same AS (
    SELECT * FROM schedules WHERE tenant = $2 AND mode = $3 AND digest = $4::uuid
), made AS (
    INSERT INTO schedules (id, tenant, mode, digest, cron, time_zone, notification, needs, blobs,
                           note, paused, next_at)
    SELECT $1::uuid, $2, $3, $4::uuid, $5, $6, $7::bytea, $8::text[], $9::bytea[], $10,
           $11::boolean, $12::timestamptz
    WHERE NOT EXISTS (SELECT FROM same)
      AND ($2 = '' OR EXISTS (SELECT FROM tenants WHERE name = $2 FOR KEY SHARE))
      AND (SELECT count(*) FROM schedules WHERE tenant = $2 AND mode = $3) < $13
    RETURNING *
)
SELECT made.*, true AS is_new FROM made
UNION ALL
SELECT same.*, false FROM same
