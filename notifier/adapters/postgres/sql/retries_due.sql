-- Counts the retries of queues that are due.
-- Parameters: $1 queues, $2 the most that are counted of a queue.
-- Returns: one row per queue.
SELECT q.queue, (
    SELECT count(*) FROM (
        SELECT FROM (SELECT 0 AS turn UNION ALL SELECT turn FROM turns WHERE queue = q.queue) t
        CROSS JOIN LATERAL (
            SELECT FROM live
            WHERE queue = q.queue AND turn = t.turn AND turn >= 0 AND class = 2 AND due_at <= now()
            LIMIT $2
        ) row
        LIMIT $2
    ) due
) AS count
FROM unnest($1::text[]) AS q (queue)
