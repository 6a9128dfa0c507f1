-- Removes entries of inboxes that have expired, some at a time.
-- Parameters: $1 the maximum of entries.
-- Returns: one row per removed entry. Repeating it continues with the next ones.
DELETE FROM inbox_entries WHERE id = ANY (ARRAY(
    SELECT id FROM inbox_entries WHERE expires_at <= now() ORDER BY expires_at LIMIT $1))
RETURNING id
