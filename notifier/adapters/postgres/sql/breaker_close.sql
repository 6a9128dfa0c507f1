-- Closes a breaker: half-open and held by this process -> closed. The next opening counts as the
-- first.
-- Parameters: $1 provider, $2 this process's id.
-- Returns: one row if it changed something; listening processes are notified at the commit.
-- Repeating it changes nothing and returns no row.
WITH changed AS (
    UPDATE breakers SET
        state = 'closed', openings = 0, changed_at = now(), probe_at = now(), held_by = NULL
    WHERE provider = $1 AND state = 'half_open' AND held_by = $2
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
