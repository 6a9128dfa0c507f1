-- Finds the schedules whose last run was refused or postponed, and those whose instant came a while ago.
-- Parameters: $1 after how many seconds an instant is late.
-- Returns: one row: the number of all, and the ids of the `refused` and the `late` ones.
SELECT count(*) AS count,
       coalesce(array_agg(id::text ORDER BY id) FILTER (WHERE last_problem IS NOT NULL), '{}')
           AS refused,
       coalesce(array_agg(id::text ORDER BY id) FILTER (
           WHERE next_at < now() - $1 * interval '1 second'), '{}') AS late
FROM schedules
