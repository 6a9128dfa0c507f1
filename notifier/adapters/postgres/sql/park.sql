-- Parks rows that this worker has claimed and that quiet hours put off: each is unclaimed and due
-- after its span, in the class of rows that are due for the first time, and no try is spent.
-- (What a pause holds is parked by claim_held.sql.)
-- Parameters: $1 ids without duplicates, $2 the claim of each, $3 this worker's id, $4 spans in seconds.
-- Returns: one row per parked row.
-- Repeating it changes nothing: the row is no longer claimed.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
)
UPDATE live l SET
    claimed_by = '00000000-0000-0000-0000-000000000000', class = 1,
    due_at = (SELECT now FROM clock) + t.after_s * interval '1 second',
    ready_at = (SELECT now FROM clock) + t.after_s * interval '1 second'
FROM unnest($1::uuid[], $2::integer[], $4::float8[]) AS t (id, claim, after_s)
WHERE l.id = ANY ($1::uuid[]) AND l.id = t.id AND l.claim = t.claim AND l.claimed_by = $3
RETURNING l.queue
