-- Counts the rows that stand before a notification in its turn. A class is read from its mark in the queue's
-- lease on, up to which every row was claimed.
-- Parameters: $1 queue, $2 classes, $3 and $4 the position (due_at, id) of each, before which its
-- rows count, $5 the id of the notification, which does not count, $6 the maximum number of rows to
-- read, $7 the turn.
-- Returns: one row per class that has rows there; `count` of them wait. `read` is the number of rows
-- read of all classes: if it is $6, there may be more.
SELECT class, count(*) FILTER (WHERE is_waiting) AS count, sum(count(*)) OVER ()::bigint AS read
FROM (
    SELECT before.class, l.is_waiting
    FROM unnest($2::smallint[], $3::timestamptz[], $4::uuid[]) AS before (class, due_at, id)
    LEFT JOIN leases lease ON lease.queue = $1
    CROSS JOIN LATERAL (
        SELECT coalesce((progress #>> ARRAY['marks', before.class::text, '0'])::timestamptz,
                        '1970-01-01 00:00:00+00') AS at,
               coalesce((progress #>> ARRAY['marks', before.class::text, '1'])::uuid,
                        '00000000-0000-0000-0000-000000000000') AS id
        FROM (SELECT CASE WHEN $7 = 0 THEN lease.progress
                          ELSE lease.progress #> ARRAY['turns', $7::text] END)
            AS of_lease (progress)
    ) mark
    CROSS JOIN LATERAL (
        SELECT claimed_by = '00000000-0000-0000-0000-000000000000' AND expires_at > now()
                   AND id <> $5 AS is_waiting
        FROM live
        WHERE queue = $1 AND turn = $7::smallint AND turn >= 0 AND class = before.class
          AND (due_at, id) > (mark.at, mark.id) AND (due_at, id) < (before.due_at, before.id)
        ORDER BY due_at, id LIMIT $6
    ) l
    LIMIT $6
) AS row
GROUP BY class
