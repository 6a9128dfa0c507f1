-- Reads which queues no live process publishes.
-- Parameters: $1 queues, $2 the maximum age of a heartbeat that counts as live, in seconds.
-- Returns: one row per such queue, `name`, in the order of $1.
SELECT q.name
FROM unnest($1::text[]) WITH ORDINALITY AS q (name, number)
LEFT JOIN leases l ON l.queue = q.name
LEFT JOIN workers w ON w.id = l.holder AND w.beat_at > now() - make_interval(secs => $2::float8)
WHERE w.id IS NULL
ORDER BY q.number
