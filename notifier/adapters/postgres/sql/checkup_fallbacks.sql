-- Counts the fallbacks that are not done, and those that were to be looked at a while ago.
-- Parameters: $1 after how many seconds that is late.
-- Returns: one row: the number of those that are not done, of the `late` ones, and the ids of a few of
-- these.
SELECT count(*) AS count,
       count(*) FILTER (WHERE look_at < now() - $1 * interval '1 second') AS late,
       coalesce((array_agg(id::text ORDER BY look_at) FILTER (
           WHERE look_at < now() - $1 * interval '1 second'))[1:10], '{}') AS named
FROM fallbacks WHERE look_at IS NOT NULL
