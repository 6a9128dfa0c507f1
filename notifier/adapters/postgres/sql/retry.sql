-- Lets those of these notifications wait again that have ended and are not sent: due at once, in the
-- class of retries, with no try spent. Their claims are above all earlier ones, so that no pointer
-- and no result from before changes them. They expire after the time that they had at first. Their
-- turn is that of their tenant if the queue uses it, see domain/turns.py. Those whose content is gone
-- stay; the lock waits for an erasure (erase_lock.sql) and makes it wait.
-- Parameters: $1 ids, $2 and $3 the least and the greatest of them, $4 the instant after which they
-- may not have ended (null: none), $5 the operation (null: none).
-- Returns: one row per notification that waits again.
-- Repeating it changes nothing: their ends are gone.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
), stored AS (
    SELECT id FROM notifications
    WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2 AND $3 AND content <> ''
    ORDER BY id
    FOR SHARE
), locked AS (
    SELECT id FROM ends
    WHERE id = ANY (ARRAY(SELECT id FROM stored)) AND id BETWEEN $2 AND $3
    ORDER BY id
    FOR UPDATE
), returned AS (
    DELETE FROM ends
    WHERE id = ANY (ARRAY(SELECT id FROM locked)) AND id BETWEEN $2 AND $3
      AND status IN ('failed', 'expired', 'cancelled', 'suppressed', 'undelivered')
      AND ($4::timestamptz IS NULL OR at <= $4
           OR (status = 'expired' AND EXISTS (SELECT FROM notifications n
                                              WHERE n.id = ends.id AND n.id BETWEEN $2 AND $3
                                                AND n.expires_at <= $4)))
    RETURNING id, claim + 1 AS claim, queue
), noted AS (
    INSERT INTO retries (id, claim, operation, at)
    SELECT id, claim, $5, (SELECT now FROM clock) FROM returned
    ON CONFLICT (id) DO UPDATE SET
        claim = excluded.claim, operation = excluded.operation, at = excluded.at
)
INSERT INTO live (id, created_at, due_at, ready_at, expires_at, claim, size, turn, class, max_tries,
                  queue)
SELECT r.id, n.created_at, (SELECT now FROM clock), (SELECT now FROM clock),
       greatest(n.expires_at, (SELECT now FROM clock) + (n.expires_at - n.created_at)),
       r.claim, octet_length(n.content),
       coalesce((SELECT turn FROM turns t
                 WHERE t.queue = r.queue
                   AND t.turn = 1 + get_byte(sha256(convert_to(n.tenant, 'UTF8')), 0) % 63), 0),
       2, coalesce(n.max_tries, 0), r.queue
FROM returned r JOIN notifications n ON n.id = r.id AND n.id BETWEEN $2 AND $3
RETURNING id, queue
