-- A part of fail_unclaimable.sql: what its event is about.
, event AS (
    SELECT id, claim, 'failed' AS status, 'poison' AS reason, tries, queue FROM failed
)
