-- A part of record_late.sql: what its events are about.
, event AS (
    SELECT s.id, s.claim, 'sent' AS status, '' AS reason, k.spent AS tries, k.queue
    FROM settled s JOIN known k ON k.id = s.id AND k.claim = s.claim
)
