-- A part of receipts_ended.sql: what its events are about.
, event AS (
    SELECT * FROM ended
)
