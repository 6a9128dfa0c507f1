-- Closes a breaker although no process settles a probe: a call was accepted that counts as one. The
-- next opening counts as the first.
-- Parameters: $1 provider, $2 the reason for which it is open.
-- Returns: one row if it changed something; listening processes are notified at the commit.
-- Repeating it changes nothing and returns no row.
WITH changed AS (
    UPDATE breakers SET
        state = 'closed', openings = 0, changed_at = now(), probe_at = now(), held_by = NULL
    WHERE provider = $1 AND state <> 'closed' AND reason = $2
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
