-- Starts a pause, or gives an existing one a new note and end; it then keeps its start.
-- Parameters: $1 kind, $2 name, $3 note, $4 how long it lasts in seconds, or null for no end.
-- Returns: one row, as controls_pauses.sql does; listening processes are notified at the commit.
-- Repeating it moves the end of the pause.
WITH changed AS (
    INSERT INTO pauses (kind, name, reason, expires_at)
    VALUES ($1::text::pause_kind, $2, $3, now() + make_interval(secs => $4::float8))
    ON CONFLICT (kind, name) DO UPDATE SET
        reason = excluded.reason,
        expires_at = excluded.expires_at,
        paused_at = CASE WHEN pauses.expires_at <= now() THEN now() ELSE pauses.paused_at END
    RETURNING *
)
SELECT pg_notify('notifier_controls', ''), kind::text AS kind, name, reason AS note, paused_at,
       expires_at, extract(epoch FROM now() - paused_at)::float8 AS age_s,
       extract(epoch FROM expires_at - now())::float8 AS expires_in_s
FROM changed
