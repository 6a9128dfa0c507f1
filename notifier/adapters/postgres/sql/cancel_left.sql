-- Counts those of these notifications that wait or are being sent.
-- Parameters: $1 ids, $2 the instant until which they must have been accepted.
SELECT count(*) FROM live
WHERE id = ANY ($1::uuid[]) AND created_at <= $2
  AND (claimed_by <> '00000000-0000-0000-0000-000000000000' OR (expires_at > now()) IS TRUE)
