-- Reads a blob of a notification.
-- Parameters: $1 id of the notification, $2 hash.
-- Returns: one row, none if its tenant has no such blob.
SELECT data FROM blobs
WHERE tenant = (SELECT tenant FROM notifications WHERE id = $1) AND hash = $2
