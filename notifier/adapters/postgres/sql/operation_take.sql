-- Takes the operation whose next step is due first, for a while: nobody else takes it meanwhile, and if
-- this process ends, another does after it.
-- Parameters: $1 for how many seconds, $2 the newest version of a selection that this process knows,
-- $3 the kinds that it knows.
-- Returns: its row; none if none is due.
UPDATE operations SET next_at = clock_timestamp() + $1::double precision * interval '1 second',
                      steps = steps + 1
WHERE id = (
    SELECT id FROM operations
    WHERE status = 'running' AND next_at <= now() AND version <= $2 AND kind = ANY ($3::text[])
    ORDER BY next_at LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING *
