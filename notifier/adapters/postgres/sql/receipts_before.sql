-- Reads the statuses of notifications that receipts have ended before.
-- Parameters: $1 ids, $2 and $3 the least and the greatest of them.
-- Returns: one row per notification that has an end.
SELECT id, status::text AS status FROM ends WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2 AND $3
