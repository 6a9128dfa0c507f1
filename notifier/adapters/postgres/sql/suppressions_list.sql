-- Reads suppressions of one tenant and mode, newest first.
-- Parameters: $1 tenant, $2 mode, $3 the greatest id, $4 the maximum of rows to return, $5 the maximum
-- of candidates to read; $6 hashes, $7 channels, $8 topics and $9 reasons (null: any).
-- Returns: rows of matching candidates, and always one with the `count` of candidates and the id of
-- the `last` one.
WITH candidate AS MATERIALIZED (
    SELECT * FROM suppressions
    WHERE tenant = $1 AND mode = $2 AND id <= $3 AND $6::uuid[] IS NULL
    ORDER BY id DESC LIMIT $5
), by_hash AS MATERIALIZED (
    SELECT * FROM suppressions
    WHERE hash = ANY ($6) AND tenant = $1 AND mode = $2 AND id <= $3
), found AS MATERIALIZED (
    SELECT * FROM (SELECT * FROM candidate UNION ALL SELECT * FROM by_hash) c
    WHERE ($7::text[] IS NULL OR channel = ANY ($7)) AND ($8::text[] IS NULL OR topic = ANY ($8))
      AND ($9::text[] IS NULL OR reason = ANY ($9))
    ORDER BY id DESC LIMIT $4
)
SELECT f.*, c.count, c.last
FROM (SELECT count(*) AS count, (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
      FROM candidate) c
LEFT JOIN found f ON true
ORDER BY f.id DESC
