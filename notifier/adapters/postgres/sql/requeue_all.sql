-- For a broker that starts empty: everything published and not claimed is due again.
UPDATE notifications SET published_at = NULL, due_at = ready_at, is_retry = false, updated_at = now()
WHERE status = 'queued' AND due_at IS NULL
