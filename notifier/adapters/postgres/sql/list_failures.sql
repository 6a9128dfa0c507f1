-- Reads one page of the log of failures, newest first.
-- Parameters: $1 LIKE pattern of the queue's name, $2 and $3 the least and the greatest id, $4 the
-- page's size, $5 reason (null: any).
-- Returns: one row per failure.
SELECT id, queue, provider, reason, code, detail, tries, first_at, at AS last_at
FROM ends
WHERE status = 'failed' AND id BETWEEN $2 AND $3 AND queue LIKE $1
  AND ($5::text IS NULL OR reason = $5)
ORDER BY id DESC
LIMIT $4
