-- Locks receipts that are due, and finds the notification of each: the one with an accepted attempt by
-- this provider that has the reference. Receipts that another process has locked are left out.
-- Parameters: $1 the maximum of receipts, $2 seconds after which one without a notification is given
-- up, $3 and $4 the events and reasons that this version knows. Others are left to newer processes.
-- Returns: one row per receipt; `id` and what it goes with are null without a notification. `claim` is
-- that of the attempt. `is_live`: it waits or is being sent. `is_late`: a person has had it sent again
-- after this attempt.
-- (LIMIT 1: see read_notifications.sql. A hash may be that of other values: the attempt decides.)
WITH due AS MATERIALIZED (
    SELECT * FROM receipts_unmatched
    WHERE next_at <= now() AND event = ANY ($3::text[]) AND reason = ANY ($4::text[])
    ORDER BY next_at LIMIT $1
    FOR UPDATE SKIP LOCKED
)
SELECT d.provider, d.key, d.reference, d.event, d.reason, d.code, d.detail, d.recipient, d.provider_at,
       d.received_at, d.is_suppressed, date_part('epoch', now() - d.received_at) AS age_s,
       d.received_at <= now() - $2 * interval '1 second' AS is_given_up,
       m.id, m.claim, m.tenant, m.test_channel, m.queue, m.topic, m.own_recipient,
       l.id IS NOT NULL AS is_live, r.claim > m.claim AS is_late
FROM due d
LEFT JOIN LATERAL (
    SELECT k.id, a.claim, n.tenant, n.test_channel, n.queue, n.topic, n.recipient AS own_recipient
    FROM lookups k
    CROSS JOIN LATERAL (SELECT claim FROM attempts
                        WHERE id = k.id AND provider = d.provider AND reference = d.reference
                          AND outcome = 'accepted' ORDER BY claim DESC LIMIT 1) a
    CROSS JOIN LATERAL (SELECT * FROM notifications WHERE id = k.id LIMIT 1) n
    WHERE k.hash = d.hash ORDER BY k.id DESC LIMIT 1) m ON true
LEFT JOIN LATERAL (SELECT id FROM live WHERE id = m.id LIMIT 1) l ON true
LEFT JOIN LATERAL (SELECT claim FROM retries WHERE id = m.id LIMIT 1) r ON true
