-- Reads the attempts of one notification.
-- Parameters: $1 its id.
-- Returns: one row per attempt, in the order of the claims.
SELECT claim AS number, provider, outcome, code, http_status, detail, reference, queue_wait_s,
       started_at, finished_at, next_at, repeats, late
FROM attempts WHERE id = $1 ORDER BY claim
