-- Reads one page of the log of failures, newest first. A parameter that is null filters nothing.
-- Parameters: $1 reason, $2 LIKE pattern of the queue's name, $3 and $4 the earliest and latest
-- time of acceptance, $5 the cursor (the last id of the page before), $6 the page's size.
-- Returns: one row per failure.
SELECT id, queue, provider, reason, code, detail, tries, first_at, last_at
FROM failures
WHERE ($1::text IS NULL OR reason = $1)
  AND ($2::text IS NULL OR queue LIKE $2)
  AND ($3::timestamptz IS NULL OR id >= uuid_at($3))
  AND ($4::timestamptz IS NULL OR id <= uuid_at($4))
  AND ($5::uuid IS NULL OR id < $5)
ORDER BY id DESC
LIMIT $6
