-- Disables a webhook whose URL answered that it is gone, unless it has another URL by now.
-- Parameters: $1 id, $2 the URL.
-- Returns: the row, if this call disabled it.
-- Repeating it changes nothing.
UPDATE webhooks SET status = 'disabled', reason = 'gone', last_failure_at = now()
WHERE id = $1 AND url = $2 AND status = 'enabled'
RETURNING *
