-- Finds providers whose server takes fewer connections than the settings allow, by the heartbeats.
-- Parameters: $1 the maximum age of a heartbeat that counts as live, in seconds.
-- Returns: one row per such provider: `provider`, `workers` that found it, and the `least` and
-- `most` connections of one worker.
SELECT provider.key AS provider, count(*)::integer AS workers,
       min((provider.value ->> 'connections')::integer) AS least,
       max((provider.value ->> 'connections')::integer) AS most
FROM workers, jsonb_each(figures::jsonb -> 'providers') AS provider
WHERE beat_at > now() - make_interval(secs => $1::float8)
  AND jsonb_typeof(provider.value -> 'connections') = 'number'
GROUP BY provider.key
ORDER BY provider.key
