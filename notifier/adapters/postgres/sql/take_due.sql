-- Takes due rows for the relay of this process and marks them as published: of each queue and class
-- at most its quota, oldest first, and at most $4 in all, in the order of the quotas. (The nested
-- loop reads a later quota only for what the earlier ones left.) Status and due_at are checked
-- again under the lock. The transaction ends before anything is published.
-- Parameters: $1 queues, $2 whether retries are meant, $3 the quotas, $4 the limit over all quotas,
-- $5 this process's id.
-- Returns: one row per taken notification; `size` in bytes, `ready_at` and `published_at` in
-- seconds since the epoch.
-- Repeating it takes the next rows.
-- (An array instead of a join: a join reads the whole partition of a day once it is large. The
-- status as text and IS TRUE: otherwise Postgres reads a whole index of waiting rows when its
-- statistics are older than a surge.)
WITH taken AS (
    SELECT due.id
    FROM unnest($1::text[], $2::boolean[], $3::integer[]) AS quota (queue, is_retry, max_rows)
    CROSS JOIN LATERAL (
        SELECT id FROM notifications n
        WHERE n.queue = quota.queue AND n.is_retry = quota.is_retry AND n.due_at <= now()
        ORDER BY n.due_at
        LIMIT quota.max_rows
        FOR UPDATE SKIP LOCKED
    ) due
    LIMIT $4
)
UPDATE notifications n SET
    status = 'queued', due_at = NULL, published_at = now(), published_by = $5, updated_at = now()
WHERE n.id = ANY (ARRAY(SELECT id FROM taken))
  AND n.status::text IN ('scheduled', 'queued', 'retrying') AND (n.due_at <= now()) IS TRUE
RETURNING n.id, n.claim, n.queue, n.is_retry, n.deaths, octet_length(n.content) AS size,
          date_part('epoch', n.ready_at) AS ready_at,
          date_part('epoch', n.published_at) AS published_at
