-- Reads what the events of notifications show, besides what is stored in them.
-- Parameters: $1 ids, $2 claims, $3 whether the event is of an attempt, $4 whether it is of an end.
-- Returns: one row per event whose notification is stored; `number` is its position, from 1. What the
-- provider answered is from the attempt of the claim, or the one that counts it as a repetition, and
-- from the end while there is one of this claim.
-- (LIMIT 1: see read_notifications.sql.)
SELECT t.number, n.tenant, n.test_channel, n.queue, n.recipient, n.metadata, n.tag, n.topic,
       coalesce(nullif(e.provider, ''), a.provider) AS provider,
       coalesce(nullif(e.code, ''), a.code) AS code,
       coalesce(nullif(e.detail, ''), a.detail) AS detail,
       a.reference, coalesce(e.at, a.finished_at) AS result_at
FROM unnest($1::uuid[], $2::integer[], $3::boolean[], $4::boolean[]) WITH ORDINALITY
    AS t (id, claim, is_attempt, is_end, number)
JOIN LATERAL (SELECT * FROM notifications WHERE id = t.id LIMIT 1) n ON true
LEFT JOIN LATERAL (SELECT * FROM attempts
                   WHERE t.is_attempt AND id = t.id AND claim >= t.claim
                     AND claim - repeats <= t.claim
                   ORDER BY claim LIMIT 1) a ON true
LEFT JOIN LATERAL (SELECT * FROM ends WHERE t.is_end AND id = t.id AND claim = t.claim LIMIT 1) e
    ON true
ORDER BY t.number
