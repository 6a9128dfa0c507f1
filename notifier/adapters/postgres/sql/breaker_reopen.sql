-- Half-open and held by $2 -> open. The wait is 5 s doubled at each opening in a row, 60 s at most.
WITH changed AS (
    UPDATE breakers SET
        state = 'open', reason = $3, openings = openings + 1, changed_at = now(), held_by = NULL,
        probe_at = now() + make_interval(secs => least(60, 5 * power(2, least(openings, 9))))
    WHERE provider = $1 AND state = 'half_open' AND held_by = $2
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
