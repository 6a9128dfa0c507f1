-- Reads operations, newest first.
-- Parameters: $1 the tenant (null: all), $2 the mode, $3 the id or null, $4 kinds and $5 statuses
-- (null: any), $6 the greatest id, $7 the maximum of rows.
-- Returns: one row per operation.
SELECT * FROM operations
WHERE ($1::text IS NULL OR tenant = $1) AND mode = $2 AND ($3::uuid IS NULL OR id = $3)
  AND ($4::text[] IS NULL OR kind = ANY ($4)) AND ($5::text[] IS NULL OR status = ANY ($5))
  AND id <= $6
ORDER BY id DESC LIMIT $7
