-- This process's heartbeat; answers with everybody else's and the time. Always at least one row.
WITH mine AS (
    INSERT INTO workers (id, kind, host, pid, beat, figures) VALUES ($1, $2, $3, $4, $5, $6::jsonb)
    ON CONFLICT (id) DO UPDATE SET
        beat = excluded.beat, beat_at = now(), figures = excluded.figures
)
SELECT other.id, kind, host, pid, beat, extract(epoch FROM now() - beat_at)::float8 AS age_s,
       figures::text AS figures, extract(epoch FROM clock_timestamp())::float8 AS now
FROM (SELECT) AS always LEFT JOIN workers other ON other.id <> $1
