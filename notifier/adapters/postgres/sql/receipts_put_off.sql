-- Lets the receipt that is due next wait.
-- Parameters: $1 seconds until it is due again, $2 and $3 as $3 and $4 in receipts_take.sql.
-- Returns: one row with its provider, if there was one.
UPDATE receipts_unmatched SET next_at = now() + $1 * interval '1 second'
WHERE (provider, key) = (SELECT provider, key FROM receipts_unmatched
                         WHERE next_at <= now() AND event = ANY ($2::text[])
                           AND reason = ANY ($3::text[])
                         ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING provider
