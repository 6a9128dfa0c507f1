-- Parks rows that this worker has claimed and that may not be sent now: each is unclaimed and due
-- after its span, in the class of rows that are due for the first time, and no try is spent. What a
-- pause holds is noted in `parked`, so that it becomes due when the pause ends.
-- Parameters: $1 ids without duplicates, $2 the claim of each, $3 this worker's id, $4 spans in
-- seconds, $5 kinds and $6 names of the pauses, null for rows that no pause holds.
-- Returns: one row per parked row.
-- Repeating it changes nothing: the row is no longer claimed.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
), moved AS (
    UPDATE live l SET
        claimed_by = '00000000-0000-0000-0000-000000000000', class = 1,
        due_at = (SELECT now FROM clock) + t.after_s * interval '1 second',
        ready_at = (SELECT now FROM clock) + t.after_s * interval '1 second'
    FROM unnest($1::uuid[], $2::integer[], $4::float8[], $5::text[], $6::text[])
        AS t (id, claim, after_s, kind, name)
    WHERE l.id = ANY ($1::uuid[]) AND l.id = t.id AND l.claim = t.claim AND l.claimed_by = $3
    RETURNING l.id, l.queue, t.kind, t.name
), noted AS (
    INSERT INTO parked (id, kind, name)
    SELECT id, kind, name FROM moved WHERE kind IS NOT NULL
    ORDER BY id
    ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, name = excluded.name
)
SELECT queue FROM moved
