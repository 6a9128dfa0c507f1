-- Half-open and held by $2 -> closed. The next opening is the first again.
WITH changed AS (
    UPDATE breakers SET
        state = 'closed', openings = 0, changed_at = now(), probe_at = now(), held_by = NULL
    WHERE provider = $1 AND state = 'half_open' AND held_by = $2
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
