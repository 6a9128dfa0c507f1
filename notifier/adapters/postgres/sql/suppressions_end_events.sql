-- A part of suppressions_end.sql: what its events are about.
, event AS (
    SELECT e.id, e.claim, 'suppressed' AS status, t.reason, e.tries, e.queue
    FROM ended e JOIN unnest($1::uuid[], $2::text[]) AS t (id, reason) USING (id)
)
