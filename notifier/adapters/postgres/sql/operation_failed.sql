-- Ends an operation whose steps fail again and again.
-- Parameters: $1 id, $2 its status from now on.
-- Returns: its row if it ran.
UPDATE operations SET
    status = $2, skipped = greatest(0, matched - done - failed), updated_at = now(),
    finished_at = now()
WHERE id = $1 AND status = 'running'
RETURNING *
