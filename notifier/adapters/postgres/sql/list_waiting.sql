-- Finds notifications that wait, newest first.
-- Parameters: $1 to $4 as in list_notifications.sql, $5 the status (scheduled, queued, retrying).
-- Returns: as list_notifications.sql. The candidates are the rows that are due, or will be, by the
-- index on due_at; where these are more than 5000, all rows of `live`, by their id.
WITH RECURSIVE queues AS (
    SELECT min(queue) AS queue FROM live WHERE turn >= 0
    UNION ALL
    SELECT (SELECT min(l.queue) FROM live l WHERE l.turn >= 0 AND l.queue > q.queue)
    FROM queues q WHERE q.queue IS NOT NULL
), few AS MATERIALIZED (
    SELECT r.*
    FROM queues q
    CROSS JOIN LATERAL (
        SELECT 0 AS turn UNION ALL SELECT turn FROM turns WHERE queue = q.queue
    ) t
    CROSS JOIN (VALUES (0), (1), (2), (3)) AS c (class)
    CROSS JOIN LATERAL (
        SELECT id, queue, claimed_by, expires_at, due_at, class FROM live
        WHERE queue = q.queue AND turn = t.turn AND turn >= 0 AND class = c.class
          AND due_at > CASE WHEN $5 = 'queued' THEN '-infinity' ELSE now() END
          AND due_at <= CASE WHEN $5 = 'queued' THEN now() ELSE 'infinity' END
        LIMIT 5001
    ) r
    WHERE q.queue LIKE ANY ($4::text[]) AND ($5 = 'queued' OR ($5 = 'retrying') = (c.class = 2))
    LIMIT 5001
), candidate AS MATERIALIZED (
    (SELECT * FROM few
     WHERE (SELECT count(*) FROM few) <= 5000 AND id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT $3)
    UNION ALL
    (SELECT id, queue, claimed_by, expires_at, due_at, class FROM live
     WHERE (SELECT count(*) FROM few) > 5000 AND id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT $3)
)
SELECT ARRAY(
           SELECT id FROM candidate
           WHERE queue LIKE ANY ($4::text[]) AND claimed_by = '00000000-0000-0000-0000-000000000000'
             AND expires_at > now()
             AND CASE WHEN due_at <= now() THEN 'queued' WHEN class = 2 THEN 'retrying'
                      ELSE 'scheduled' END = $5
           ORDER BY id DESC
       ) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
