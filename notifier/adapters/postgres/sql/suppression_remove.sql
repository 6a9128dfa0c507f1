-- Removes a suppression.
-- Parameters: $1 id, $2 tenant, $3 mode.
-- Returns: the row, if there was one.
DELETE FROM suppressions WHERE id = $1 AND tenant = $2 AND mode = $3
RETURNING channel, topic, reason, note, expires_at
