-- Reopens a breaker after a failed probe: half-open and held by this process -> open. The wait for
-- the next probe is doubled for each opening in a row, at most 60 s.
-- Parameters: $1 provider, $2 this process's id, $3 reason, $4 the provider's code, $5 the wait of
-- the first opening and $6 the least wait, in seconds.
-- Returns: one row if it changed something; listening processes are notified at the commit.
-- Repeating it changes nothing and returns no row.
WITH changed AS (
    UPDATE breakers SET
        state = 'open', reason = $3, code = $4, openings = openings + 1, changed_at = now(),
        held_by = NULL,
        probe_at = now() + make_interval(secs => greatest(
            $6::float8, least(60, $5::float8 * power(2, least(openings, 9)))))
    WHERE provider = $1 AND state = 'half_open' AND held_by = $2
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
