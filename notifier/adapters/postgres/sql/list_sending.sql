-- Finds notifications that are being sent, newest first. No index has them by their worker: a claim
-- would then have to write it. But what is claimed was published before, so it lies up to the floor
-- of its queue and class, or within the rows that were published since the lease was last renewed.
-- Parameters: as in list_notifications.sql.
-- Returns: as list_notifications.sql; the candidates are all rows that are being sent.
WITH RECURSIVE queues AS (
    SELECT min(queue) AS queue FROM live WHERE turn >= 0
    UNION ALL
    SELECT (SELECT min(l.queue) FROM live l WHERE l.turn >= 0 AND l.queue > q.queue)
    FROM queues q WHERE q.queue IS NOT NULL
), floors AS MATERIALIZED (
    SELECT q.queue, t.turn, c.class,
           coalesce((t.progress #>> ARRAY['floors', c.class::text, '0'])::timestamptz,
                    '1970-01-01 00:00:00+00') AS due_at,
           coalesce((t.progress #>> ARRAY['floors', c.class::text, '1'])::uuid,
                    '00000000-0000-0000-0000-000000000000') AS id
    FROM queues q
    LEFT JOIN leases l ON l.queue = q.queue
    CROSS JOIN LATERAL (
        SELECT 0 AS turn, l.progress
        UNION ALL
        SELECT used.turn, stored.progress
        FROM turns used
        LEFT JOIN jsonb_each(CASE jsonb_typeof(l.progress -> 'turns')
                             WHEN 'object' THEN l.progress -> 'turns' END)
            AS stored (turn, progress) ON stored.turn = used.turn::text
        WHERE used.queue = q.queue
    ) t
    CROSS JOIN (VALUES (0), (1), (2), (3)) AS c (class)
    WHERE q.queue LIKE ANY ($4::text[])
), candidate AS MATERIALIZED (
    SELECT r.id
    FROM floors f
    CROSS JOIN LATERAL (
        (SELECT id, claimed_by FROM live
         WHERE queue = f.queue AND turn = f.turn AND turn >= 0 AND class = f.class
           AND (due_at, id) <= (f.due_at, f.id))
        UNION ALL
        (SELECT id, claimed_by FROM live
         WHERE queue = f.queue AND turn = f.turn AND turn >= 0 AND class = f.class
           AND (due_at, id) > (f.due_at, f.id) AND due_at <= now()
         ORDER BY due_at, id LIMIT 20000)
    ) r
    WHERE (r.id BETWEEN $1 AND $2) IS TRUE AND r.claimed_by <> '00000000-0000-0000-0000-000000000000'
    ORDER BY r.id DESC LIMIT $3
)
SELECT ARRAY(SELECT id FROM candidate ORDER BY id DESC) AS ids,
       (SELECT count(*) FROM candidate) AS count,
       (SELECT id FROM candidate ORDER BY id LIMIT 1) AS last
