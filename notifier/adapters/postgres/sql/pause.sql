-- Starts a pause, or gives an existing one a new reason and end; it then keeps its start.
-- Parameters: $1 kind, $2 name, $3 reason, $4 how long it lasts in seconds, or null for no end.
-- Returns: one row; listening processes are notified at the commit.
-- Repeating it moves the end of the pause.
WITH changed AS (
    INSERT INTO pauses (kind, name, reason, expires_at)
    VALUES ($1::text::pause_kind, $2, $3, now() + make_interval(secs => $4::float8))
    ON CONFLICT (kind, name) DO UPDATE SET
        reason = excluded.reason,
        expires_at = excluded.expires_at,
        paused_at = CASE WHEN pauses.expires_at <= now() THEN now() ELSE pauses.paused_at END
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
