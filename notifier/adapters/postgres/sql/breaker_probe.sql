-- Makes the probe of an open breaker due at once.
-- Parameters: $1 provider.
-- Returns: one row if it changed something; listening processes are notified at the commit.
-- Repeating it changes nothing.
WITH changed AS (
    UPDATE breakers SET probe_at = now()
    WHERE provider = $1 AND state = 'open' AND probe_at > now()
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
