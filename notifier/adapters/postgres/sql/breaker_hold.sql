-- Past its wait, or past another's hold -> half-open, held by $2 for $3 seconds. An instant further
-- ahead than the longest wait and hold was left by a clock put back.
WITH changed AS (
    UPDATE breakers SET
        state = 'half_open', held_by = $2, probe_at = now() + make_interval(secs => $3::float8),
        changed_at = CASE WHEN state = 'half_open' THEN changed_at ELSE now() END
    WHERE provider = $1 AND state <> 'closed' AND (
        probe_at <= now() OR probe_at > now() + make_interval(secs => 60 + $3::float8)
    )
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
