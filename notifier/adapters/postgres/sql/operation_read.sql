-- Reads one operation.
-- Parameters: $1 id, $2 the tenant (null: any), $3 the mode, $4 kinds and $5 statuses that this process
-- knows.
-- Returns: its row, or none.
SELECT * FROM operations
WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) AND mode = $3
  AND kind = ANY ($4::text[]) AND status = ANY ($5::text[])
