-- Counts the calls of webhooks that wait or are being made, up to a maximum.
-- Parameters: $1 the queue, $2 the maximum.
-- Returns: one row.
SELECT count(*) AS waiting
FROM (SELECT FROM live WHERE queue = $1 AND turn >= 0 LIMIT $2) l
