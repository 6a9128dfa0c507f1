-- Reads the recipients of receipts that have no notification yet, in the order of the primary key.
-- Parameters: $1 the instant after which they may not have been received, $2 and $3 the provider and
-- the key after which it begins, $4 the maximum of rows.
-- Returns: one row per receipt that names its recipient.
SELECT provider, key, recipient FROM receipts_unmatched
WHERE received_at <= $1 AND recipient IS NOT NULL AND (provider, key) > ($2, $3)
ORDER BY provider, key LIMIT $4
