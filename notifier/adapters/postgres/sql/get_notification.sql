-- Reads one notification.
-- Parameters: $1 its id.
-- Returns: one row, or none if the id is unknown.
SELECT id, status::text AS status, queue, recipient, content, metadata, tries, max_tries, last_error,
       created_at, updated_at, due_at, expires_at
FROM notifications WHERE id = $1
