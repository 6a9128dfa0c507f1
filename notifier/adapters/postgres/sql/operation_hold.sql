-- Locks an operation that runs and whose step is still this process's.
-- Parameters: $1 id, $2 the `next_at` that this process has set.
-- Returns: one row, or none.
SELECT id FROM operations WHERE id = $1 AND status = 'running' AND next_at = $2 FOR UPDATE
