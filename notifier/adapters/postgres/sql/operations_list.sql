-- Reads operations, newest first.
-- Parameters: $1 the tenant (null: all), $2 the mode, $3 kinds and $4 statuses, one of which each must
-- have, $5 the greatest id, $6 the maximum of rows, $7 the maximum of candidates.
-- Returns: rows of matching candidates, and always one with the `count` of candidates and the id of the
-- `last` one.
WITH candidate AS MATERIALIZED (
    (SELECT * FROM operations
     WHERE $1::text IS NOT NULL AND tenant = $1 AND mode = $2 AND id <= $5
     ORDER BY tenant DESC, mode DESC, id DESC LIMIT $7)
    UNION ALL
    (SELECT * FROM operations WHERE $1::text IS NULL AND id <= $5 ORDER BY id DESC LIMIT $7)
), found AS MATERIALIZED (
    SELECT * FROM candidate
    WHERE mode = $2 AND kind = ANY ($3::text[]) AND status = ANY ($4::text[])
    ORDER BY id DESC LIMIT $6
)
SELECT f.*, c.candidates, c.last
FROM (SELECT count(*) AS candidates, (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
      FROM candidate) c
LEFT JOIN found f ON true
ORDER BY f.id DESC
