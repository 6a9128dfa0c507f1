-- Starts a pause of a tag or tenant, as pause.sql does with those of queues.
-- Parameters: $1 kind, $2 name, $3 note, $4 how long it lasts in seconds, or null for no end.
-- Returns: one row, as controls_holds.sql does; listening processes are notified at the commit.
-- Repeating it moves the end of the pause.
WITH changed AS (
    INSERT INTO holds (kind, name, note, until)
    VALUES ($1, $2, $3, now() + make_interval(secs => $4::float8))
    ON CONFLICT (kind, name) DO UPDATE SET
        note = excluded.note,
        until = excluded.until,
        since = CASE WHEN holds.until <= now() THEN now() ELSE holds.since END
    RETURNING *
)
SELECT pg_notify('notifier_controls', ''), kind, name, note, since AS paused_at,
       until AS expires_at, extract(epoch FROM now() - since)::float8 AS age_s,
       extract(epoch FROM until - now())::float8 AS expires_in_s
FROM changed
