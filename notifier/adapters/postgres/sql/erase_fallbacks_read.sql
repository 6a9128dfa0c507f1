-- Reads what fallbacks that wait would submit, in the order of their ids.
-- Parameters: $1 tenant (null: all), $2 whether those of test keys, $3 the instant after which their
-- first notifications may not have been accepted, $4 the id after which it begins, $5 the maximum of
-- rows.
-- Returns: one row per fallback.
SELECT f.id, f.submit FROM fallbacks f JOIN notifications n ON n.id = f.id
WHERE f.look_at IS NOT NULL AND f.submit IS NOT NULL
  AND ($1::text IS NULL OR n.tenant = $1) AND (n.test_channel <> '') = $2::boolean
  AND n.created_at <= $3 AND f.id > $4
ORDER BY f.id LIMIT $5
