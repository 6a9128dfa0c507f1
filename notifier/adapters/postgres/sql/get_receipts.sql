-- Reads the receipts of a notification.
-- Parameters: $1 id.
-- Returns: one row per receipt, the oldest first by the provider's time.
SELECT provider, event, code, detail, provider_at, received_at
FROM receipts WHERE id = $1
ORDER BY provider_at, received_at, key
