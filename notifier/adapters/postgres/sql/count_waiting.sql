-- Counts the rows of each queue that wait to be published, as waiting.sql does, for people to read.
-- Parameters: $1 queues, $2 how many rows of each class are read at most.
-- Returns: one row per queue; `is_exact` is false if a class has more rows, `count` is then a
-- minimum. `oldest` is how long its oldest unclaimed row that is due has waited since it was first
-- due: for a retry, since its first attempt became due, which that attempt's wait tells; without
-- one, since it was accepted. Of given back rows and retries the 100 that were due first are looked
-- at.
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
SELECT q.queue, coalesce(sum(due.count), 0)::bigint AS count, bool_and(due.is_exact) AS is_exact,
       coalesce(now() - min(oldest.first_due_at) FILTER (WHERE isfinite(oldest.first_due_at)),
                interval '0') AS oldest
FROM unnest($1::text[]) AS q (queue)
CROSS JOIN (
    VALUES (0, interval '0', 100), (1, interval '0', 1), (2, interval '0', 100),
           (3, interval '2 seconds', 1)
) AS c (class, due_for, candidates)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE claimed_by = '00000000-0000-0000-0000-000000000000') AS count,
           count(*) < $2 AS is_exact
    FROM (
        SELECT row.claimed_by FROM (
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
            ORDER BY due_at, id LIMIT $2
        ) AS row
        LIMIT $2
    ) AS counted
) due
CROSS JOIN LATERAL (
    SELECT min(CASE WHEN c.class = 2 THEN coalesce(first_due_at, created_at) ELSE ready_at END)
               AS first_due_at
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
        SELECT id, ready_at, created_at FROM (
            SELECT id, claimed_by, ready_at, created_at, expires_at FROM live
            WHERE queue = q.queue AND turn = t.turn AND turn >= 0 AND class = c.class
              AND (due_at, id) > (p.mark_at, p.mark_id) AND due_at <= now()
            ORDER BY due_at, id LIMIT 5000
        ) AS row
        WHERE claimed_by = '00000000-0000-0000-0000-000000000000' AND expires_at > now()
        LIMIT c.candidates
    ) AS unclaimed
    LEFT JOIN LATERAL (
        SELECT started_at - make_interval(secs => queue_wait_s::float8) AS first_due_at
        FROM attempts WHERE c.class = 2 AND attempts.id = unclaimed.id ORDER BY claim LIMIT 1
    ) first_attempt ON true
) oldest
GROUP BY q.queue
