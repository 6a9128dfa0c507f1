-- Keeps notifications whose recipients calls of webhooks will name as they are until the end of the
-- transaction: an erasure waits, and finds the calls.
-- Parameters: $1 ids, $2 and $3 the least and the greatest of them.
-- Returns: one row per notification that is stored and was not erased.
SELECT id FROM notifications
WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2 AND $3 AND recipient <> ''
ORDER BY id
FOR SHARE
