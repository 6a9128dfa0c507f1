-- Replaces the filter of an operation that names an erased recipient, and forgets its idempotency
-- key, whose body has the filter. It is stopped if it runs: without the recipient it would select
-- other notifications.
-- Parameters: $1 id, $2 the filter as it is shown, $3 the one for the search, $4 and $5 the same before.
-- Returns: one row; none if another erasure has changed it meanwhile.
UPDATE operations SET
    filter = $2::text::jsonb, selection = $3::text::jsonb, key = NULL, body = NULL,
    status = CASE WHEN status = 'running' THEN 'stopped' ELSE status END,
    skipped = CASE WHEN status = 'running' THEN greatest(0, matched - done - failed) ELSE skipped END,
    finished_at = CASE WHEN status = 'running' THEN now() ELSE finished_at END,
    updated_at = now()
WHERE id = $1 AND filter = $4::text::jsonb AND selection = $5::text::jsonb
RETURNING id
