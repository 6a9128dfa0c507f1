-- Counts the rows of each queue that wait to be published: the due rows after the floors of its
-- lease, from the beginning if it has none. A row of class 3 was published by the process that
-- stored it, and is published again once it has been due for 2 s.
-- Parameters: $1 queues, $2 the number up to which each class is counted.
-- Returns: one row per queue; `oldest` is how long its oldest unclaimed row has waited, published or
-- not. It is looked for from the marks on, up to which every row was claimed. The first unclaimed
-- row of a class has waited longest, except in class 0: a row that is given back keeps its ready_at.
-- (At most 5000 rows of a class of a turn are read: without that limit Postgres would pass all
-- claimed ones.)
-- (`of_turn` divides the progress of each lease once: with many turns it is large, and stored compressed.)
WITH of_turn AS MATERIALIZED (
    SELECT q.queue, 0 AS turn, jsonb_build_object('floors', lease.progress -> 'floors',
                                                  'marks', lease.progress -> 'marks') AS progress
    FROM unnest($1::text[]) AS q (queue) LEFT JOIN leases lease ON lease.queue = q.queue
    UNION ALL
    SELECT q.queue, used.turn, stored.progress
    FROM unnest($1::text[]) AS q (queue)
    JOIN turns used ON used.queue = q.queue
    LEFT JOIN leases lease ON lease.queue = q.queue
    LEFT JOIN LATERAL jsonb_each(CASE jsonb_typeof(lease.progress -> 'turns')
                                 WHEN 'object' THEN lease.progress -> 'turns' END)
        AS stored (turn, progress) ON stored.turn = used.turn::text
)
SELECT q.queue, coalesce(sum(due.count), 0)::bigint AS count,
       coalesce(now() - min(oldest.ready_at) FILTER (WHERE isfinite(oldest.ready_at)),
                interval '0') AS oldest
FROM unnest($1::text[]) AS q (queue)
CROSS JOIN (
    VALUES (0, interval '0', 100), (1, interval '0', 1), (2, interval '0', 1),
           (3, interval '2 seconds', 1)
) AS c (class, due_for, candidates)
CROSS JOIN LATERAL (
    SELECT count(*) AS count FROM (
        SELECT FROM (
            SELECT turn, progress FROM of_turn
            WHERE queue = q.queue AND (turn = 0 OR c.class < 3)
        ) t
        CROSS JOIN LATERAL (
            SELECT coalesce((t.progress #>> ARRAY['floors', c.class::text, '0'])::timestamptz,
                            '1970-01-01 00:00:00+00') AS floor_at,
                   coalesce((t.progress #>> ARRAY['floors', c.class::text, '1'])::uuid,
                            '00000000-0000-0000-0000-000000000000') AS floor_id
        ) p
        CROSS JOIN LATERAL (
            SELECT claimed_by FROM live
            WHERE queue = q.queue AND turn = t.turn AND turn >= 0 AND class = c.class
              AND (due_at, id) > (p.floor_at, p.floor_id) AND due_at <= now() - c.due_for
            ORDER BY due_at, id LIMIT 5000
        ) AS row
        WHERE claimed_by = '00000000-0000-0000-0000-000000000000' LIMIT $2
    ) AS unclaimed
) due
CROSS JOIN LATERAL (
    SELECT min(unclaimed.ready_at) AS ready_at
    FROM (
        SELECT turn, progress FROM of_turn WHERE queue = q.queue AND (turn = 0 OR c.class < 3)
    ) t
    CROSS JOIN LATERAL (
        SELECT coalesce((t.progress #>> ARRAY['marks', c.class::text, '0'])::timestamptz,
                        '1970-01-01 00:00:00+00') AS mark_at,
               coalesce((t.progress #>> ARRAY['marks', c.class::text, '1'])::uuid,
                        '00000000-0000-0000-0000-000000000000') AS mark_id
    ) p
    CROSS JOIN LATERAL (
        SELECT ready_at FROM (
            SELECT claimed_by, ready_at, expires_at FROM live
            WHERE queue = q.queue AND turn = t.turn AND turn >= 0 AND class = c.class
              AND (due_at, id) > (p.mark_at, p.mark_id) AND due_at <= now()
            ORDER BY due_at, id LIMIT 5000
        ) AS row
        WHERE claimed_by = '00000000-0000-0000-0000-000000000000' AND expires_at > now()
        LIMIT c.candidates
    ) AS unclaimed
) oldest
GROUP BY q.queue
