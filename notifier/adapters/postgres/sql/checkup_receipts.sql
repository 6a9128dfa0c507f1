-- Counts receipts that have waited for their notifications for a while.
-- Parameters: $1 seconds of that while, $2 the number at which it stops counting.
-- Returns: one row with their `count` and the `providers` that they are of.
SELECT count(*) AS count, coalesce(array_agg(DISTINCT provider ORDER BY provider), '{}') AS providers
FROM (SELECT provider FROM receipts_unmatched
      WHERE received_at < now() - $1 * interval '1 second' LIMIT $2) r
