-- Stores a batch of accepted notifications: each due at once, after its delay, or as already
-- published by this process, which then publishes it after the commit.
-- Parameters: $1 ids, $2 tenants, $3 queues, $4 recipients, $5 contents, $6 metadata, $7 greatest
-- numbers of tries, $8 delays, $9 times to live, $10 whether each is stored as published, $11 this
-- process's id.
-- Returns: one row, `now`: the transaction's time in seconds since the epoch.
-- Repeating it stores no id twice. For rows of this process that are unclaimed and stored as
-- published, the last call's $10 decides.
WITH stored AS (
    INSERT INTO notifications AS n
        (id, tenant, queue, recipient, content, metadata, max_tries, status, ready_at, due_at,
         expires_at, published_at, published_by)
    SELECT id, tenant, queue, recipient, content, metadata, max_tries,
           CASE WHEN delay > interval '0' THEN 'scheduled' ELSE 'queued' END::notification_status,
           now() + delay, CASE WHEN NOT is_taken THEN now() + delay END,
           now() + ttl, CASE WHEN is_taken THEN now() END, CASE WHEN is_taken THEN $11::uuid END
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[],
                $7::smallint[], $8::interval[], $9::interval[], $10::boolean[])
        AS t (id, tenant, queue, recipient, content, metadata, max_tries, delay, ttl, is_taken)
    ON CONFLICT (id) DO UPDATE SET
        due_at = CASE WHEN excluded.published_at IS NULL THEN n.ready_at END,
        published_at = excluded.published_at, updated_at = now()
    WHERE n.status = 'queued' AND n.claim = 0 AND n.due_at IS NULL AND n.published_by = $11
)
SELECT date_part('epoch', now()) AS now
