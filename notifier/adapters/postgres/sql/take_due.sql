-- The relay's take: per queue and class ($1, $2) at most $3 rows, oldest first, and $4 in all, in
-- the order of the quotas: the nested loop asks a later quota only for what the earlier left. $5 is
-- this process.
-- Status and due_at are checked again under the lock. The transaction ends before anything is
-- published. (An array, not a join: a join reads the day's whole partition once it is large. As text
-- and IS TRUE: else an index of waiting rows is read whole when statistics are older than a surge.)
WITH taken AS (
    SELECT due.id
    FROM unnest($1::text[], $2::boolean[], $3::integer[]) AS quota (queue, is_retry, most)
    CROSS JOIN LATERAL (
        SELECT id FROM notifications n
        WHERE n.queue = quota.queue AND n.is_retry = quota.is_retry AND n.due_at <= now()
        ORDER BY n.due_at
        LIMIT quota.most
        FOR UPDATE SKIP LOCKED
    ) due
    LIMIT $4
)
UPDATE notifications n SET
    status = 'queued', due_at = NULL, published_at = now(), published_by = $5, updated_at = now()
WHERE n.id = ANY (ARRAY(SELECT id FROM taken))
  AND n.status::text IN ('scheduled', 'queued', 'retrying') AND (n.due_at <= now()) IS TRUE
RETURNING n.id, n.claim, n.queue, n.is_retry, date_part('epoch', n.ready_at) AS ready_at,
          date_part('epoch', n.published_at) AS published_at
