-- Reads what the events of notifications show, besides what is stored in them.
-- Parameters: $1 ids, $2 claims, and of the type of all these events: $3 whether it is of an attempt,
-- $4 the status with which it ends a notification (null: it does not), $5 whether a receipt causes it.
-- Returns: one row per event whose notification is stored; `number` is its position, from 1. What the
-- provider answered is from the end if there is one of this claim and status, otherwise from the attempt
-- of the claim, or the one that counts it as a repetition. What another receipt has replaced is null.
-- (LIMIT 1: see read_notifications.sql.)
SELECT t.number, n.tenant, n.test_channel, n.queue, n.recipient, n.metadata, n.tag, n.topic,
       CASE WHEN e.id IS NULL THEN a.provider ELSE e.provider END AS provider,
       CASE WHEN e.id IS NOT NULL THEN e.code WHEN NOT $5::boolean THEN a.code END AS code,
       CASE WHEN e.id IS NOT NULL THEN e.detail WHEN NOT $5::boolean THEN a.detail END AS detail,
       a.reference, coalesce(e.at, a.finished_at) AS result_at
FROM unnest($1::uuid[], $2::integer[]) WITH ORDINALITY AS t (id, claim, number)
JOIN LATERAL (SELECT * FROM notifications WHERE id = t.id LIMIT 1) n ON true
LEFT JOIN LATERAL (SELECT * FROM attempts
                   WHERE $3::boolean AND id = t.id AND claim >= t.claim
                     AND claim - repeats <= t.claim
                   ORDER BY claim LIMIT 1) a ON true
LEFT JOIN LATERAL (SELECT * FROM ends
                   WHERE $4::text IS NOT NULL AND id = t.id AND claim = t.claim
                     AND status::text = $4::text LIMIT 1) e ON true
ORDER BY t.number
