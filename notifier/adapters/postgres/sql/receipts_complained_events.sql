-- A part of receipts_complained.sql: what its events are about.
, event AS (
    SELECT * FROM complained
)
