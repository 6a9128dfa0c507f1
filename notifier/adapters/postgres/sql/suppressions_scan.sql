-- Reads notifications that wait or are being sent, in the order of their ids: those that may have no
-- lookup of their recipient, because the settings had none when they were stored.
-- From an hour after the start of these lookups all have one; the hour is for processes with older
-- settings.
-- Parameters: $1 the id after which it begins, $2 the maximum of rows, $3 the greatest id.
-- Returns: as suppressions_find.sql; `recipient` is null if the notification is missing.
SELECT l.id, l.queue, n.recipient, n.topic, n.tenant, n.test_channel
FROM (
    SELECT id, queue FROM live
    WHERE id > $1
      AND id < coalesce((SELECT uuid_at(since + interval '1 hour') FROM lookup_starts
                         WHERE kind = 'recipient'), $3)
    ORDER BY id LIMIT $2
) l
LEFT JOIN LATERAL (SELECT recipient, topic, tenant, test_channel FROM notifications WHERE id = l.id LIMIT 1) n ON true
ORDER BY l.id
