-- Begin a pause, or give one that holds a new reason and end; it keeps its beginning then.
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
