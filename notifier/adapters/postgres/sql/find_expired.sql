-- Finds unclaimed rows whose expires_at has passed, the longest expired first.
-- Parameters: $1 the maximum number of rows.
-- Returns: the id of each.
SELECT id FROM live
WHERE expires_at <= now() AND claimed_by = '00000000-0000-0000-0000-000000000000'
ORDER BY expires_at
LIMIT $1
