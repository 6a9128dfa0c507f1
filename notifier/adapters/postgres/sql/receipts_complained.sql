-- Reads notifications of which a recipient has complained for the first time, in the transaction that
-- keeps the receipts and holds receipts_complained_lock.sql, for their events.
-- Parameters: $1 ids, $2 claims of the attempts, $3 how many complaints about each are new, $4 and $5
-- the least and the greatest id.
-- Returns: one row per notification. (Its status is in `reason`: a complaint does not change it.)
WITH complained AS (
    SELECT t.id, t.claim, 'complained' AS status, coalesce(e.status::text, 'sent') AS reason, a.tries, n.queue
    FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS t (id, claim, new)
    CROSS JOIN LATERAL (SELECT queue FROM notifications
                        WHERE id = t.id AND id BETWEEN $4 AND $5 LIMIT 1) n
    CROSS JOIN LATERAL (SELECT coalesce(max(tries), 1)::smallint AS tries FROM attempts
                        WHERE id = t.id AND id BETWEEN $4 AND $5 AND claim <= t.claim) a
    LEFT JOIN LATERAL (SELECT status FROM ends
                       WHERE id = t.id AND id BETWEEN $4 AND $5 LIMIT 1) e ON true
    WHERE t.new = (SELECT count(*) FROM receipts
                   WHERE id = t.id AND id BETWEEN $4 AND $5 AND claim = t.claim
                     AND event = 'complained')
)
-- :parts
SELECT id FROM complained
