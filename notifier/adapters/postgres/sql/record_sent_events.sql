-- A part of record_sent.sql: what its events are about.
, event AS (
    SELECT id, claim, 'sent' AS status, '' AS reason, least(tries + 1, 32767)::smallint AS tries,
           queue
    FROM moved
)
