-- Opens a breaker: closed, or never opened before -> open, with its first probe in 5 s.
-- Parameters: $1 provider, $2 reason.
-- Returns: one row if it changed something; listening processes are notified at the commit.
-- Repeating it changes nothing and returns no row.
WITH changed AS (
    INSERT INTO breakers (provider, state, reason, openings, probe_at)
    VALUES ($1, 'open', $2, 1, now() + interval '5 s')
    ON CONFLICT (provider) DO UPDATE SET
        state = 'open', reason = excluded.reason, openings = 1, changed_at = now(),
        probe_at = excluded.probe_at, held_by = NULL
    WHERE breakers.state = 'closed'
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
