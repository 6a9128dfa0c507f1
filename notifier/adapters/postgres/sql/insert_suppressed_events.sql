-- A part that follows insert_suppressed.sql: what its events are about.
, event AS (
    SELECT id, 0 AS claim, 'suppressed' AS status, reason, 0::smallint AS tries, queue
    FROM suppressed
)
