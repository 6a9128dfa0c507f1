-- Reads what fallbacks that wait would submit, in the order of their ids.
-- Parameters: $1 tenant (null: all), $2 whether those of test keys, $3 the instant after which their
-- first notifications may not have been accepted, $4 the id after which it begins, $5 the maximum of
-- rows.
-- Returns: one row per fallback that waits; `is_concerned` says whether $1 to $3 select it.
-- (Those that wait are found by their index, and only then their notifications: as a join Postgres
-- might read all notifications, or all fallbacks that are done.)
WITH waiting AS MATERIALIZED (
    SELECT id FROM fallbacks WHERE look_at IS NOT NULL
), page AS MATERIALIZED (
    SELECT id FROM waiting WHERE id > $4 ORDER BY id LIMIT $5
)
SELECT p.id, (SELECT submit FROM fallbacks f WHERE f.id = p.id LIMIT 1) AS submit,
       (SELECT ($1::text IS NULL OR n.tenant = $1) AND (n.test_channel <> '') = $2::boolean
               AND n.created_at <= $3
        FROM notifications n WHERE n.id = p.id LIMIT 1) IS TRUE AS is_concerned
FROM page p
ORDER BY p.id
