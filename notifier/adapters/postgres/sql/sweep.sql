-- Expires waiting rows, due or published, whose expires_at has passed. Rows published within the
-- last minute are left to the worker that claims them.
-- Parameters: $1 the maximum number of rows of each kind.
-- Returns: one row per expired notification; `age_s` since it was accepted, in seconds.
-- Repeating it expires the next rows.
WITH due AS (
    SELECT id FROM notifications
    WHERE due_at IS NOT NULL AND expires_at <= now()
    ORDER BY expires_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), published AS (
    SELECT id FROM notifications
    WHERE status = 'queued' AND due_at IS NULL AND expires_at <= now()
      AND published_at < now() - interval '1 minute'
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE notifications n SET status = 'expired', due_at = NULL, updated_at = now()
WHERE n.id = ANY (ARRAY(SELECT id FROM due UNION ALL SELECT id FROM published))
  AND n.status::text IN ('scheduled', 'queued', 'retrying') AND n.expires_at <= now()
RETURNING n.queue, date_part('epoch', now() - n.created_at) AS age_s
