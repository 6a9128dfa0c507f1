-- Reads when the first transaction from a number on wrote its events.
-- Parameters: $1 the number.
-- Returns: one row; none if there are no such events. (xmin: see events_read.sql.)
SELECT xid, at FROM event_batches b
WHERE xid >= $1 AND b.xmin::text::bigint = xid & 4294967295
ORDER BY xid LIMIT 1
