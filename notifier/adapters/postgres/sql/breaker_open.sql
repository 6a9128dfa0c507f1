-- Opens a breaker: closed, or never opened before -> open.
-- Parameters: $1 provider, $2 reason, $3 the provider's code, $4 seconds until the first probe.
-- Returns: one row if it changed something; listening processes are notified at the commit.
-- Repeating it changes nothing and returns no row.
WITH changed AS (
    INSERT INTO breakers (provider, state, reason, code, openings, probe_at)
    VALUES ($1, 'open', $2, $3, 1, now() + make_interval(secs => $4::float8))
    ON CONFLICT (provider) DO UPDATE SET
        state = 'open', reason = excluded.reason, code = excluded.code, openings = 1,
        changed_at = now(), probe_at = excluded.probe_at, held_by = NULL
    WHERE breakers.state = 'closed'
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
