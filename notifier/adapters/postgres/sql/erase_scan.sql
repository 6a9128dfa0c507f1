-- Reads notifications, newest first, for the search for those of a recipient: only a keyed hash of the
-- recipient is known, which Postgres cannot compute.
-- Parameters: $1 and $2 the least and the greatest id, $3 the maximum of rows.
-- Returns: one row per notification.
SELECT id, recipient, queue, tenant, test_channel FROM notifications
WHERE id BETWEEN $1 AND $2
ORDER BY id DESC LIMIT $3
