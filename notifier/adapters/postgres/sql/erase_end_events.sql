-- A part of erase_end.sql: what its events are about.
, event AS (
    SELECT id, claim, 'suppressed' AS status, 'erased' AS reason, tries, queue FROM ended
)
