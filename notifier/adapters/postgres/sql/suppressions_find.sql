-- Finds notifications of suppressed recipients that wait or are being sent, by their lookups.
-- Parameters: $1 hashes of recipients.
-- Returns: one row per notification, with what its lookup must be compared with.
-- (No row of `live` is older than the oldest one: lookups of days before it are not read. LIMIT 1: see
-- read_notifications.sql.)
SELECT l.id, l.queue, n.recipient, n.topic, n.tenant, n.test_channel
FROM unnest($1::uuid[]) AS h (hash)
CROSS JOIN LATERAL (SELECT id FROM lookups
                    WHERE hash = h.hash AND id >= (SELECT id FROM live ORDER BY id LIMIT 1)) k
CROSS JOIN LATERAL (SELECT id, queue FROM live WHERE id = k.id LIMIT 1) l
CROSS JOIN LATERAL (SELECT recipient, topic, tenant, test_channel FROM notifications WHERE id = k.id LIMIT 1) n
