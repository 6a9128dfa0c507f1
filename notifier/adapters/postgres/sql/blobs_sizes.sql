-- Finds the blobs of a notification.
-- Parameters: $1 id of the notification, $2 hashes.
-- Returns: one row for each that its tenant has.
SELECT hash, size FROM blobs
WHERE tenant = (SELECT tenant FROM notifications WHERE id = $1) AND hash = ANY ($2::bytea[])
