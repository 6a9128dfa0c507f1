-- Reads of some notifications what decides whether an erasure concerns them.
-- Parameters: $1 ids, $2 and $3 the least and the greatest of them.
-- Returns: as erase_scan.sql.
SELECT id, recipient, queue, tenant, test_channel FROM notifications
WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2 AND $3
