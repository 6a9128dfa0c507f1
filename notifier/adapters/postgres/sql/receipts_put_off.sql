-- Lets the receipt that is due next wait.
-- Parameters: $1 seconds until it is due again.
-- Returns: one row with its provider, if there was one.
UPDATE receipts_unmatched SET next_at = now() + $1 * interval '1 second'
WHERE (provider, key) = (SELECT provider, key FROM receipts_unmatched WHERE next_at <= now()
                         ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING provider
