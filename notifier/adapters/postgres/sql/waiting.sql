-- Counts the due rows of each queue.
-- Parameters: $1 queues, $2 the number up to which each class (first attempts, retries) is counted.
-- Returns: one row per queue; `oldest` is how long its oldest row has waited, due or published and
-- not yet claimed. (The due_at of a due row equals its ready_at.)
SELECT queue.name AS queue, due.count,
       coalesce(now() - least(due.oldest, published.ready_at), interval '0') AS oldest
FROM unnest($1::text[]) AS queue (name)
CROSS JOIN LATERAL (
    SELECT count(*) AS count, min(due_at) AS oldest FROM (
        (SELECT n.due_at FROM notifications n
         WHERE n.queue = queue.name AND NOT n.is_retry AND n.due_at <= now()
         ORDER BY n.due_at LIMIT $2)
        UNION ALL
        (SELECT n.due_at FROM notifications n
         WHERE n.queue = queue.name AND n.is_retry AND n.due_at <= now()
         ORDER BY n.due_at LIMIT $2)
    ) AS due_row
) due
LEFT JOIN LATERAL (
    SELECT n.ready_at FROM notifications n
    WHERE n.queue = queue.name AND n.status = 'queued' AND n.due_at IS NULL
    ORDER BY n.published_at LIMIT 1
) published ON true
