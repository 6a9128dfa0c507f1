-- Stores a batch of accepted notifications: each due at once, after its delay, or as already
-- published by this process, which then publishes it after the commit.
-- Parameters: $1 ids, $2 queues, $3 recipients, $4 contents, $5 metadata, $6 maximum numbers of
-- tries, $7 delays, $8 times to live, $9 whether each is stored as published, $10 this process's
-- id.
-- Returns: one row, `now`: the transaction's time in seconds since the epoch.
-- Repeating it stores no id twice. For rows of this process that are unclaimed and stored as
-- published, the last call's $9 decides.
WITH stored AS (
    INSERT INTO notifications AS n
        (id, queue, recipient, content, metadata, max_tries, status, ready_at, due_at,
         expires_at, published_at, published_by)
    SELECT id, queue, recipient, content, metadata, max_tries,
           CASE WHEN delay > interval '0' THEN 'scheduled' ELSE 'queued' END::notification_status,
           now() + delay, CASE WHEN NOT is_published THEN now() + delay END,
           now() + ttl, CASE WHEN is_published THEN now() END, CASE WHEN is_published THEN $10::uuid END
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::bytea[],
                $6::smallint[], $7::interval[], $8::interval[], $9::boolean[])
        AS t (id, queue, recipient, content, metadata, max_tries, delay, ttl, is_published)
    ON CONFLICT (id) DO UPDATE SET
        due_at = CASE WHEN excluded.published_at IS NULL THEN n.ready_at END,
        published_at = excluded.published_at, updated_at = now()
    WHERE n.status = 'queued' AND n.claim = 0 AND n.due_at IS NULL AND n.published_by = $10
)
SELECT date_part('epoch', now()) AS now
