-- A batch of accepted notifications, already due (or scheduled). Repeatable: an id is stored once.
INSERT INTO notifications
    (id, tenant, queue, recipient, content, metadata, max_tries, status, ready_at, due_at, expires_at)
SELECT id, tenant, queue, recipient, content, metadata, max_tries,
       CASE WHEN delay > interval '0' THEN 'scheduled' ELSE 'queued' END::notification_status,
       now() + delay, now() + delay, now() + ttl
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[],
            $7::smallint[], $8::interval[], $9::interval[])
    AS t (id, tenant, queue, recipient, content, metadata, max_tries, delay, ttl)
ON CONFLICT (id) DO NOTHING
