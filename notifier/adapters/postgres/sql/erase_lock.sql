-- Locks notifications that are to be erased: nobody writes a late result of them, or lets them wait
-- again, before the transaction ends (record_late.sql and retry.sql lock them, too, and look at them
-- after this). Those that were erased before are left out.
-- Parameters: $1 ids, $2 and $3 the least and the greatest of them, $4 the instant after which they
-- may not have been accepted.
-- Returns: one row per locked notification; `content` is null unless it may refer to blobs.
SELECT id, recipient, tenant, test_channel, tag, metadata,
       CASE WHEN position('"sha256:'::bytea IN content) > 0 THEN content END AS content
FROM notifications
WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2 AND $3 AND created_at <= $4 AND recipient <> ''
ORDER BY id
FOR NO KEY UPDATE
