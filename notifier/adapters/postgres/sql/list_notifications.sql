-- Reads one page of notifications, newest first: ids grow with time. A parameter that is null
-- filters nothing.
-- Parameters: $1 status, $2 LIKE pattern of the queue's name, $3 and $4 the earliest and latest
-- time of acceptance, $5 the cursor (the last id of the page before), $6 the page's size.
-- Returns: one row per notification.
-- (The conditions on due_at follow from the status. They let Postgres use the small indexes of
-- waiting rows.)
SELECT id, status::text AS status, queue, recipient, content, metadata, tries, max_tries, last_error,
       created_at, updated_at, due_at, expires_at
FROM notifications
WHERE ($1::notification_status IS NULL OR status = $1)
  AND ($1::notification_status IS NULL OR $1 NOT IN ('scheduled', 'retrying') OR due_at IS NOT NULL)
  AND ($1::notification_status IS NULL OR $1 <> 'queued'
       OR due_at IS NOT NULL OR (status = 'queued' AND due_at IS NULL))
  AND ($2::text IS NULL OR queue LIKE $2)
  AND ($3::timestamptz IS NULL OR id >= uuid_at($3))
  AND ($4::timestamptz IS NULL OR id <= uuid_at($4))
  AND ($5::uuid IS NULL OR id < $5)
ORDER BY id DESC
LIMIT $6
