-- Reads suppressions whose recipients' waiting notifications are to be looked for now.
-- Parameters: $1 the maximum of rows, $2 ids, only of which (null: any).
-- Returns: one row per suppression, the one that has been due for longest first.
SELECT id, pass, hash, channel, topic, reason,
       expires_at IS NOT NULL AND expires_at <= now() AS is_expired
FROM suppressions
WHERE pass_at <= now() AND ($2::uuid[] IS NULL OR id = ANY ($2))
ORDER BY pass_at LIMIT $1
