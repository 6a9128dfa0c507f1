-- Stops an operation that runs. It waits for the step that another process takes.
-- Parameters: $1 id, $2 the tenant (null: any), $3 the mode.
-- Returns: the row if it ran.
UPDATE operations SET
    status = 'stopped', skipped = greatest(0, matched - done - failed), updated_at = now(),
    finished_at = now()
WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) AND mode = $3 AND status = 'running'
RETURNING *
