-- Stores a batch of accepted notifications, each due at once or after its delay. The time is read
-- after the transaction has its number: a reader of rows by due_at can tell by the numbers of
-- running transactions up to which time no row can still appear.
-- Parameters: $1 ids without duplicates, $2 queues, $3 recipients, $4 contents, $5 metadata, $6
-- maximum numbers of tries, $7 delays, $8 times to live, $9 classes, $10 lengths of the contents,
-- $11 tenants and $12 channels that test keys asked for (empty: each is ''), $13 tags and $14 topics
-- (empty: none has one), $15 turns (empty: each is 0).
-- Returns: one row per notification that this call stored; `now` in seconds since the epoch.
-- Repeating it stores no id twice and returns no row.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
), stored AS (
    INSERT INTO notifications (id, created_at, expires_at, queue, recipient, content, metadata,
                               max_tries, tenant, test_channel, tag, topic)
    SELECT id, (SELECT now FROM clock), (SELECT now FROM clock) + ttl, queue, recipient, content,
           metadata, max_tries, coalesce(tenant, ''), coalesce(test_channel, ''), tag,
           topic
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::smallint[],
                $8::interval[], $11::text[], $12::text[], $13::text[], $14::text[])
        AS t (id, queue, recipient, content, metadata, max_tries, ttl, tenant, test_channel, tag,
              topic)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
-- :parts
INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, turn, class, max_tries, queue)
SELECT id, (SELECT now FROM clock), (SELECT now FROM clock) + delay, (SELECT now FROM clock) + delay,
       (SELECT now FROM clock) + ttl, size, coalesce(turn, 0), class, coalesce(max_tries, 0), queue
FROM stored JOIN unnest($1::uuid[], $2::text[], $6::smallint[], $7::interval[], $8::interval[],
                        $9::smallint[], $10::integer[], $15::smallint[])
    AS t (id, queue, max_tries, delay, ttl, class, size, turn) USING (id)
WHERE class IS NOT NULL  -- see insert_suppressed.sql
RETURNING id, date_part('epoch', created_at) AS now
