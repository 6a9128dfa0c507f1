-- Gives rows back without spending a try: those still unclaimed at the requested claim, and
-- those that this worker claimed from it and has not sent. They are read before the rows of other
-- classes and keep the time since which they have waited. The claim grows in both cases: older
-- pointers, and a claim of this worker that is still under way, then claim nothing.
-- Parameters: $1 ids without duplicates, $2 the claim of each, $3 this worker's id, $4 whether the
-- pointer was only buffered and never claimed: then a row that is being sent stays, because this
-- worker is sending it for another copy of the pointer.
-- Returns: one row per changed row.
-- Repeating it changes nothing.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
)
UPDATE live l SET
    claim = t.claim + 1, claimed_by = '00000000-0000-0000-0000-000000000000', class = 0,
    due_at = (SELECT now FROM clock)
FROM unnest($1::uuid[], $2::integer[], $4::boolean[]) AS t (id, claim, is_buffered)
WHERE l.id = ANY ($1::uuid[]) AND l.id = t.id
  AND ((l.claim = t.claim AND l.claimed_by = '00000000-0000-0000-0000-000000000000')
       OR (l.claim - 1 = t.claim AND l.claimed_by = $3 AND NOT t.is_buffered))
RETURNING l.queue
