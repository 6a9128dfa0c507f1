-- Removes roll-ups that are older than they are kept.
-- Parameters: $1 the steps, $2 for how many days each is kept, $3 the maximum number of rows of each.
-- Returns: one row with `removed`. Repeating it continues with the next ones.
WITH removed AS (
    DELETE FROM stats WHERE ctid = ANY (ARRAY(
        SELECT old.ctid
        FROM unnest($1::text[], $2::integer[]) AS kept (step, days)
        CROSS JOIN LATERAL (
            SELECT s.ctid FROM stats s
            WHERE s.step = kept.step AND s.at < now() - kept.days * interval '1 day'
            LIMIT $3
        ) AS old
    ))
    RETURNING 1
)
SELECT count(*) AS removed FROM removed
