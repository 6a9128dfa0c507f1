-- Reserves a breaker's probe for this process: past its wait, or past another process's hold ->
-- half-open. A `probe_at` further ahead than the longest wait (60 s, 900 s for a provider that asked
-- for it) plus the hold was written before the clock was set back, and does not count.
-- Parameters: $1 provider, $2 this process's id, $3 how long the hold lasts, in seconds.
-- Returns: one row if it changed something; listening processes are notified at the commit.
-- Repeating it changes nothing and returns no row until the hold ends.
WITH changed AS (
    UPDATE breakers SET
        state = 'half_open', held_by = $2, probe_at = now() + make_interval(secs => $3::float8),
        changed_at = CASE WHEN state = 'half_open' THEN changed_at ELSE now() END
    WHERE provider = $1 AND state <> 'closed' AND (
        probe_at <= now() OR probe_at > now() + make_interval(
            secs => CASE reason WHEN 'throttled' THEN 900 ELSE 60 END + $3::float8)
    )
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
