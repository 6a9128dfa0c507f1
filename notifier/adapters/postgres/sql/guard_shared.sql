-- Finds out whether several tenants use a tag.
-- Parameters: $1 the tag, $2 within how many days, $3 the step of the days.
-- Returns: one row with `is_shared`.
SELECT count(DISTINCT tenant) > 1 AS is_shared
FROM stats
WHERE step = $3 AND at > now() - $2 * interval '1 day' AND NOT is_test AND tag = $1
