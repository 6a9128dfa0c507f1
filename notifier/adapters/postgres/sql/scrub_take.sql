-- Reads up to which notifications the contents of priorities are removed, and keeps other processes
-- from removing any until the end of the transaction.
-- Parameters: $1 priorities.
-- Returns: one row per priority; fewer than asked for while another process is at work.
SELECT position FROM scrub_positions
WHERE priority = ANY ($1::text[])
ORDER BY priority
FOR UPDATE SKIP LOCKED
