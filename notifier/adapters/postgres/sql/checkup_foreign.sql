-- Reads which queues received pointers of another deployment in the last minute.
-- Parameters: $1 the maximum age of a heartbeat that counts as live, in seconds.
-- Returns: one row per such queue, `name` and `pointers`, by name.
SELECT figures.key AS name, sum((figures.value ->> 'foreign')::bigint)::bigint AS pointers
FROM workers
CROSS JOIN LATERAL jsonb_each(
    CASE WHEN jsonb_typeof(workers.figures -> 'queues') = 'object'
         THEN workers.figures -> 'queues' ELSE '{}' END
) figures
WHERE beat_at > now() - make_interval(secs => $1::float8)
  AND jsonb_typeof(figures.value -> 'foreign') = 'number' AND (figures.value ->> 'foreign') <> '0'
GROUP BY figures.key
ORDER BY figures.key
