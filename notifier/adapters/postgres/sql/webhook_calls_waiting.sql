-- Counts the calls of webhooks that wait or are being made, and notes their number.
-- Parameters: $1 the queue.
-- Returns: one row.
UPDATE webhook_fanout
SET waiting = (SELECT count(*) FROM live WHERE queue = $1 AND turn >= 0)
RETURNING waiting
