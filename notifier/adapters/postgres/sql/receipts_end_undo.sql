-- Removes ends that this transaction has written to notifications that a person had sent again
-- meanwhile: retry.sql had removed the end that receipts_end.sql did not see.
-- Parameters: $1 ids, $2 and $3 the least and the greatest of them.
-- Returns: one row per end that was removed.
DELETE FROM ends e USING live l
WHERE e.id = ANY ($1::uuid[]) AND e.id BETWEEN $2 AND $3
  AND l.id = ANY ($1) AND l.id = e.id AND e.status IN ('delivered', 'undelivered')
RETURNING e.id
