-- Counts the live processes of each kind.
-- Parameters: $1 the maximum age of a heartbeat that counts as live, in seconds.
-- Returns: one row per kind, `count`.
SELECT kind, count(*)::integer AS count FROM workers
WHERE beat_at > now() - make_interval(secs => $1::float8)
GROUP BY kind
