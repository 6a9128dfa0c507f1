-- Waiting rows past their time; at most $1 a pass.
WITH over AS (
    SELECT id FROM notifications
    WHERE status IN ('scheduled', 'queued', 'retrying') AND expires_at <= now()
    ORDER BY expires_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE notifications n SET status = 'expired', due_at = NULL, updated_at = now()
WHERE n.id = ANY (ARRAY(SELECT id FROM over))
  AND n.status::text IN ('scheduled', 'queued', 'retrying') AND n.expires_at <= now()
RETURNING n.queue, date_part('epoch', now() - n.created_at) AS age_s
