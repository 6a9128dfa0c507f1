-- Stores suppressions of one tenant and mode. One that exists keeps its id and is prolonged; one that
-- has expired begins anew. In each case waiting notifications are looked for again.
-- Parameters: $1 tenant, $2 mode, $3 ids, $4 hashes, $5 channels, $6 topics, $7 recipients, $8
-- reasons, $9 notes, $10 ends (null: none), $11 notifications; no two with the same hash, channel
-- and topic.
-- Returns: one row per suppression; `is_new` if it did not exist or had expired.
-- (In the order of the unique index: two statements cannot wait for each other.)
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[],
                         $9::text[], $10::timestamptz[], $11::uuid[])
        AS t (id, hash, channel, topic, recipient, reason, note, expires_at, notification)
    ORDER BY hash, channel, topic
), expired AS MATERIALIZED (
    SELECT s.id FROM asked a JOIN suppressions s USING (hash, channel, topic)
    WHERE s.expires_at <= now()
)
INSERT INTO suppressions AS s (id, hash, tenant, mode, channel, topic, recipient, reason, note,
                               expires_at, notification)
SELECT id, hash, $1, $2, channel, topic, recipient, reason, note, expires_at, notification FROM asked
ON CONFLICT (hash, channel, topic) DO UPDATE SET
    reason = CASE WHEN s.expires_at <= now() THEN excluded.reason ELSE s.reason END,
    note = CASE WHEN s.expires_at <= now() THEN excluded.note ELSE s.note END,
    notification = CASE WHEN s.expires_at <= now() THEN excluded.notification
                        ELSE s.notification END,
    recipient = coalesce(excluded.recipient, s.recipient),
    expires_at = CASE WHEN s.expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL
                      ELSE greatest(s.expires_at, excluded.expires_at) END,
    pass = 0, pass_at = now()
RETURNING id, hash, channel, topic, recipient, reason, note, notification, created_at, expires_at,
          xmax = 0 OR id IN (SELECT id FROM expired) AS is_new
