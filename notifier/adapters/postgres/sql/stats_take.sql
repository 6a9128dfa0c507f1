-- Deletes the oldest changes and returns what they count to. It is one transaction with what adds
-- that to the roll-ups: a change is counted once, whenever its statement committed.
-- Parameters: $1 the maximum number of changes, $2 the bounds of the histograms.
-- Returns: `count` of each minute, tenant, mode, queue, tag, provider, kind of change, reason and pair
-- of buckets (null: no call); `changes`, how many were deleted, in each row. One row whose `minute` is
-- null if they concern no notification that is stored.
-- (OFFSET 0 keeps the search for each notification by itself: only its day is looked at.)
WITH taken AS (
    DELETE FROM stats_changes
    WHERE seq = ANY (ARRAY(SELECT seq FROM stats_changes ORDER BY seq LIMIT $1))
    RETURNING *
), counted AS (
    SELECT t.minute, n.tenant, n.is_test, n.queue, n.tag, t.provider, t.what,
           t.reason,
           width_bucket(i.wait_s::float8, $2::float8[]) AS wait_bucket,
           width_bucket(i.call_s::float8, $2::float8[]) AS call_bucket,
           sum(t.sign)::bigint AS count
    FROM taken t
    CROSS JOIN LATERAL unnest(t.ids, t.wait_s, t.call_s) AS i (id, wait_s, call_s)
    CROSS JOIN LATERAL (
        SELECT n.tenant, n.test_channel <> '' AS is_test, n.queue, coalesce(n.tag, '') AS tag
        FROM notifications n WHERE n.id = i.id OFFSET 0
    ) AS n
    -- No notification is kept for longer. A minute that Python cannot hold would stop all counting.
    WHERE t.minute BETWEEN now() - interval '401 days' AND now() + interval '1 day'
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
)
SELECT total.changes, c.*
FROM (SELECT count(*) AS changes FROM taken) AS total
LEFT JOIN counted c ON true
WHERE total.changes > 0
