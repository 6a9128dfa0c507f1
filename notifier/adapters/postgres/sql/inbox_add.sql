-- Adds entries to the inboxes of the recipients of their notifications.
-- Parameters: $1 ids of notifications, $2 the subject (or null), $3 the body and $4 the data (or null)
-- of each, $5 and $6 the least and the greatest id, $7 for how many seconds they are kept.
-- Repeating it changes nothing. A notification that was erased gets no entry: the lock makes an
-- erasure wait, which then removes the entry.
WITH found AS MATERIALIZED (
    SELECT n.id, n.tenant, n.test_channel, n.recipient, t.subject, t.body, t.data
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS t (id, subject, body, data)
    JOIN notifications n ON n.id = t.id AND n.id = ANY ($1::uuid[]) AND n.id BETWEEN $5 AND $6
    WHERE n.recipient <> '' AND (n.queue LIKE 'inbox.%' OR n.test_channel = 'inbox')
    ORDER BY n.id
    FOR SHARE OF n
)
INSERT INTO inbox_entries (id, tenant, mode, user_id, subject, body, data, expires_at)
SELECT id, tenant, CASE WHEN test_channel = '' THEN 'live' ELSE 'test' END, recipient,
       subject, body, data, now() + $7::double precision * interval '1 second'
FROM found
ON CONFLICT (id) DO NOTHING
