-- Reads the queues that have rows in `live` and that no channel of the settings has.
-- Parameters: $1 the queues of the settings, $2 up to which number the rows of a queue are counted.
-- Returns: one row per such queue; `waiting` and `sending` count its rows, `is_exact` is false if
-- it has more; `age_s` is the age of the oldest one counted, in seconds.
-- (The recursion reads one row per queue through the index live_due, however many there are.)
WITH RECURSIVE present AS (
    (SELECT queue FROM live WHERE turn >= 0 ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT l.queue FROM live l WHERE l.turn >= 0 AND l.queue > p.queue
            ORDER BY l.queue LIMIT 1)
    FROM present p WHERE p.queue IS NOT NULL
)
SELECT p.queue, counted.waiting, counted.sending, counted.waiting + counted.sending < $2 AS is_exact,
       counted.age_s
FROM present p
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE NOT is_claimed)::integer AS waiting,
           count(*) FILTER (WHERE is_claimed)::integer AS sending,
           coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS age_s
    FROM (
        SELECT claimed_by <> '00000000-0000-0000-0000-000000000000' AS is_claimed, created_at
        FROM live WHERE queue = p.queue AND turn >= 0
        ORDER BY queue, turn, class, due_at, id LIMIT $2
    ) AS row
) counted
WHERE p.queue <> ALL($1::text[])
ORDER BY p.queue
