-- Reads what is suppressed of some recipients.
-- Parameters: $1 hashes.
-- Returns: one row per suppression that has not expired.
SELECT hash, channel, topic, reason FROM suppressions
WHERE hash = ANY ($1::uuid[]) AND (expires_at IS NULL OR expires_at > now())
