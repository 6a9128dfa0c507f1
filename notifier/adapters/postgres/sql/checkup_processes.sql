-- How many processes of each kind were heard in the last $1 seconds.
SELECT kind, count(*)::integer AS count FROM workers
WHERE beat_at > now() - make_interval(secs => $1::float8)
GROUP BY kind
