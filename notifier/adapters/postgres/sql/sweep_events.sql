-- A part of sweep.sql: what its events are about.
, event AS (
    SELECT id, claim, 'expired' AS status, '' AS reason, tries, queue FROM ended
)
