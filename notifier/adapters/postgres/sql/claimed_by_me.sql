-- Reads the rows that Postgres shows as being sent by this worker.
-- Parameters: $1 this worker's id.
-- Returns: one row per notification.
SELECT id, claim FROM notifications WHERE status = 'sending' AND claimed_by = $1
