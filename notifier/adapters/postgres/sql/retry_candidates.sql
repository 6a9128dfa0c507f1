-- Reads what decides whether notifications that have ended may be sent again.
-- Parameters: $1 ids, $2 and $3 the least and the greatest of them, $4 the instant after which they
-- may not have ended (null: none). What expired before may have been swept later.
-- Returns: one row per notification that has ended other than by being sent.
SELECT e.id, e.queue, n.recipient, n.tenant, n.test_channel, n.topic, n.content <> '' AS has_content
FROM ends e JOIN notifications n ON n.id = e.id AND n.id BETWEEN $2 AND $3
WHERE e.id = ANY ($1::uuid[]) AND e.id BETWEEN $2 AND $3
  AND ($4::timestamptz IS NULL OR e.at <= $4 OR (e.status = 'expired' AND n.expires_at <= $4))
