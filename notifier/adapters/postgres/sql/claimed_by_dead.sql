-- What dead processes were sending: those without a row in workers, and those whose counter still
-- stands where the caller saw it stand for too long ($1 ids, $2 counters). One snapshot: a process
-- has its row before its first claim. The dead are found first, by steps through the small index of
-- what is being sent, then their rows.
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
SELECT n.id, n.claim, n.claimed_by, n.queue, n.tries, n.max_tries, n.deaths
FROM dead CROSS JOIN LATERAL (
    SELECT * FROM notifications
    WHERE status = 'sending' AND claimed_by = dead.id
    LIMIT 500
) n
LIMIT 500
