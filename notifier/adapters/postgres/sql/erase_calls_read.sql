-- Reads the calls of webhooks whose events are of erased notifications, and locks them, so that nobody
-- removes their contents before the transaction ends.
-- Parameters: $1 hashes of the lookups of such calls, $2 the queue of calls.
-- Returns: one row per call that has its content.
WITH found AS MATERIALIZED (
    SELECT DISTINCT id FROM lookups WHERE hash = ANY ($1::uuid[])
)
SELECT id, content FROM notifications
WHERE id = ANY (ARRAY(SELECT id FROM found)) AND queue = $2 AND content <> ''
ORDER BY id
FOR NO KEY UPDATE
