-- A part of settle_orphans.sql: what its events are about.
, event AS (
    SELECT id, claim, CASE status WHEN 'queued' THEN 'retrying' ELSE status END AS status, reason,
           tries, queue
    FROM orphan
)
