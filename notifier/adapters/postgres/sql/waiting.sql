-- Per queue ($1): due rows, of each class counted to $2, and how long the oldest has waited, be it
-- due or published and not yet claimed. A due row's due_at is its ready_at.
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
    ) AS one
) due
LEFT JOIN LATERAL (
    SELECT n.ready_at FROM notifications n
    WHERE n.queue = queue.name AND n.status = 'queued' AND n.due_at IS NULL
    ORDER BY n.published_at LIMIT 1
) published ON true
