-- Finds notifications that were left, and are due to be looked at again.
-- Parameters: $1 the maximum of rows.
-- Returns: one row per notification. It locks them, and leaves out what another process has locked.
SELECT id FROM scrub_later WHERE due_at <= now()
ORDER BY due_at LIMIT $1
FOR UPDATE SKIP LOCKED
