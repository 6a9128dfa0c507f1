-- Groups failures by reason, provider and code.
-- Parameters: $1 and $2 the least and the greatest id, $3 how many failures are read at most, those of
-- the newest notifications, $4 the instant from which on they must have ended, $5 the tenant (null:
-- all), $6 whether of tests, $7 channels, one of which was asked for (null: all but $8), $8 channels
-- that are left out, $9 the maximum of groups.
-- Returns: one row per group, those with the most failures first. `queues`, `hours` (counted from $4
-- on) and `counts` belong together: parts of the group. `is_exact` of each row is false if there may be
-- more failures than were read. One row whose `reason` is null if there is no group.
-- (The comparisons of pairs: see list_ended.sql. The bounds of `id` leave a search in few partitions.)
WITH failed AS MATERIALIZED (
    SELECT id, queue, reason, provider, code, at FROM ends
    WHERE (status, id) >= ('failed', $1) AND (status, id) <= ('failed', $2)
    ORDER BY status DESC, id DESC LIMIT $3
), recent AS MATERIALIZED (
    SELECT * FROM failed WHERE at >= $4
), seen AS MATERIALIZED (
    SELECT id FROM notifications
    WHERE id = ANY (ARRAY(SELECT id FROM recent))
      AND id >= (SELECT id FROM recent ORDER BY id LIMIT 1)
      AND id <= (SELECT id FROM recent ORDER BY id DESC LIMIT 1)
      AND ($5::text IS NULL OR tenant = $5) AND (test_channel <> '') = $6
      AND CASE WHEN $7::text[] IS NULL THEN split_part(queue, '.', 1) <> ALL ($8::text[])
               ELSE coalesce(nullif(test_channel, ''), split_part(queue, '.', 1)) = ANY ($7) END
), part AS (
    -- max(ARRAY[id]): Postgres has no greatest uuid.
    SELECT reason, provider, code, queue,
           floor(date_part('epoch', at - $4) / 3600)::integer AS hour,
           count(*) AS count, min(at) AS first_at, max(at) AS last_at, max(ARRAY[id]) AS sample
    FROM recent JOIN seen USING (id)
    GROUP BY 1, 2, 3, 4, 5
), groups AS (
    SELECT reason, provider, code, sum(count)::bigint AS count, min(first_at) AS first_at,
           max(last_at) AS last_at, (max(sample))[1] AS sample, array_agg(queue) AS queues,
           array_agg(hour) AS hours, array_agg(count) AS counts
    FROM part
    GROUP BY 1, 2, 3
    ORDER BY count DESC, last_at DESC, reason, provider, code LIMIT $9
)
SELECT total.is_exact, g.*
FROM (SELECT count(*) < $3 AS is_exact FROM failed) AS total LEFT JOIN groups g ON true
ORDER BY g.count DESC, g.last_at DESC, g.reason, g.provider, g.code
