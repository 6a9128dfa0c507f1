-- A part of record.sql: what its events are about.
, event AS (
    SELECT id, claim, status, coalesce(reason, '') AS reason, tries, queue FROM moved
)
