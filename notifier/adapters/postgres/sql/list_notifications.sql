-- Finds notifications of any status, newest first: ids grow with time.
-- Parameters: $1 and $2 the least and the greatest id, $3 the maximum of candidates to read, $4 LIKE
-- patterns, one of which the queue's name matches.
-- Returns: one row: `ids`, the `count` of candidates that were read and the id of the `last` one.
WITH candidate AS MATERIALIZED (
    SELECT id, queue FROM notifications WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT $3
)
SELECT ARRAY(SELECT id FROM candidate WHERE queue LIKE ANY ($4::text[]) ORDER BY id DESC) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
