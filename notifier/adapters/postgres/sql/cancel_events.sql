-- A part of cancel.sql: what its events are about.
, event AS (
    SELECT id, claim, 'cancelled' AS status, 'request' AS reason, tries, queue FROM ended
)
