-- Newest first; $1 reason, $2 pattern of the queue's name, $3 and $4 the first and last instant of
-- acceptance, $5 the cursor, $6 how many. Null means any.
SELECT id, queue, provider, reason, code, detail, tries, first_at, last_at
FROM failures
WHERE ($1::text IS NULL OR reason = $1)
  AND ($2::text IS NULL OR queue LIKE $2)
  AND ($3::timestamptz IS NULL OR id >= uuid_at($3))
  AND ($4::timestamptz IS NULL OR id <= uuid_at($4))
  AND ($5::uuid IS NULL OR id < $5)
ORDER BY id DESC
LIMIT $6
