-- Reads the newest rows of events.
-- Parameters: $1 the number of a transaction: only earlier ones are read, $2 how many rows to read at
-- least, $3 the time from which events are read.
-- Returns: rows, the newest first; all those of a transaction or none. (xmin: see events_read.sql.)
SELECT b.* FROM event_batches b
WHERE xid < $1 AND at >= $3 AND b.xmin::text::bigint = xid & 4294967295
ORDER BY xid DESC FETCH FIRST ($2) ROWS WITH TIES
