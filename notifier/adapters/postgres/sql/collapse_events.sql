-- A part of collapse.sql: what its events are about.
, event AS (
    SELECT id, claim, 'cancelled' AS status, 'collapsed' AS reason, tries, queue FROM ended
)
