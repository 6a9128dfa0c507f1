-- Writes this process's heartbeat and reads those of all other processes.
-- Parameters: $1 id, $2 kind (api, worker, dev), $3 host, $4 pid, $5 counter, $6 figures (JSON).
-- Returns: one row per other process, with `age_s` in seconds; `now` is Postgres's clock in seconds
-- since the epoch. Always at least one row: without other processes its `id` is null.
-- Repeating it writes the same heartbeat again.
WITH mine AS (
    INSERT INTO workers (id, kind, host, pid, beat, figures) VALUES ($1, $2, $3, $4, $5, $6::jsonb)
    ON CONFLICT (id) DO UPDATE SET
        beat = excluded.beat, beat_at = now(), figures = excluded.figures
)
SELECT other.id, kind, host, pid, beat, extract(epoch FROM now() - beat_at)::float8 AS age_s,
       figures::text AS figures, extract(epoch FROM clock_timestamp())::float8 AS now
FROM (SELECT) AS always LEFT JOIN workers other ON other.id <> $1
