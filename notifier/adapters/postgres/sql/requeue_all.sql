-- Makes due again every row that is published and not claimed, for a broker that starts empty.
-- Parameters: none.
-- Returns: no rows.
-- Repeating it changes nothing.
UPDATE notifications SET published_at = NULL, due_at = ready_at, is_retry = false, updated_at = now()
WHERE status = 'queued' AND due_at IS NULL
