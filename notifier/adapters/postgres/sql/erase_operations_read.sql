-- Reads the filters of other operations, in the order of their ids.
-- Parameters: $1 tenant (null: all), $2 mode, $3 the instant after which they may not have been
-- made, $4 the id after which it begins, $5 the maximum of rows.
-- Returns: one row per operation.
SELECT id, filter, selection FROM operations
WHERE ($1::text IS NULL OR tenant = $1) AND mode = $2 AND created_at <= $3 AND id > $4 AND kind <> 'erase'
ORDER BY id LIMIT $5
