-- Finds notifications of any status, newest first: ids grow with time.
-- Parameters: $1 LIKE patterns, one of which the queue's name matches, $2 and $3 the least and the greatest id, $4 the
-- maximum of ids to return, $5 the maximum of candidates to read.
-- Returns: one row: `ids`, the `count` of candidates that were read and the id of the `last` one.
WITH candidate AS MATERIALIZED (
    SELECT id, queue FROM notifications WHERE id BETWEEN $2 AND $3 ORDER BY id DESC LIMIT $5
)
SELECT ARRAY(SELECT id FROM candidate WHERE queue LIKE ANY ($1::text[]) ORDER BY id DESC LIMIT $4) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
