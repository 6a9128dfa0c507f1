-- Notes how far an operation came.
-- Parameters: $1 id, $2 status, $3 to $7 `matched`, `done`, `failed`, `pass` and `found`, $8 the position
-- of the pass, $9 ids for the sample, $10 seconds until the next step, $11 how many the sample has at
-- most.
-- Returns: its row.
UPDATE operations SET
    status = $2::text, matched = $3::integer, done = $4::integer, failed = $5::integer,
    pass = $6, found = $7, before = $8, steps = 0,
    skipped = CASE WHEN $2::text = 'running' THEN skipped
                   ELSE greatest(0, $3::integer - $4::integer - $5::integer) END,
    sample = (sample || $9::uuid[])[1:$11],
    next_at = now() + $10::double precision * interval '1 second', updated_at = now(),
    finished_at = CASE WHEN $2::text = 'running' THEN NULL ELSE now() END
WHERE id = $1
RETURNING *
