-- Reads the rows that dead processes were sending, at most 500. Dead is a process without a row in
-- `workers`, and one whose counter is still the one that the caller saw unchanged for too long.
-- Both are read in one snapshot: a process has its row before its first claim.
-- Parameters: $1 ids of the processes that look dead, $2 their counters, $3 this process's id,
-- which is never dead.
-- Returns: one row per notification.
-- (The recursive part steps through the small index of rows being sent, from one claiming process
-- to the next, and finds the dead ones before their rows are read.)
WITH RECURSIVE claimer AS (
    (SELECT claimed_by AS id FROM notifications
     WHERE status = 'sending' AND claimed_by IS NOT NULL ORDER BY claimed_by LIMIT 1)
    UNION ALL
    SELECT (SELECT n.claimed_by FROM notifications n
            WHERE n.status = 'sending' AND n.claimed_by > claimer.id
            ORDER BY n.claimed_by LIMIT 1)
    FROM claimer WHERE claimer.id IS NOT NULL
), dead AS (
    SELECT claimer.id FROM claimer LEFT JOIN workers w ON w.id = claimer.id
    WHERE claimer.id IS NOT NULL AND claimer.id <> $3
      AND (w.id IS NULL OR (w.id, w.beat) IN (SELECT * FROM unnest($1::uuid[], $2::bigint[])))
)
SELECT n.id, n.claim, n.claimed_by, n.queue, n.deaths
FROM dead CROSS JOIN LATERAL (
    SELECT * FROM notifications
    WHERE status = 'sending' AND claimed_by = dead.id
    LIMIT 500
) n
LIMIT 500
