-- Stores a batch as insert.sql does, except for notifications whose idempotency key is known.
-- A key is written under the present day. A day's first minute also writes it under the day before,
-- first: there it meets the statements that began before midnight. After that minute nobody writes
-- the day before any more, and it is only read.
-- The keys are written in their order, so that two statements cannot wait for each other. Each part
-- reads what the part before it returns: that alone makes Postgres run them in this order.
-- Parameters: $1 to $14 as in insert.sql; $15 digests of keys, each at most once, null for a
-- notification without one; $16 digests of bodies; $17 statuses of the answers;
-- $18 turns (empty: each is 0).
-- Returns: as insert.sql. It stores either both the key and the notification or neither.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
), asked AS (
    SELECT key, id, body, status::notification_status AS status
    FROM unnest($1::uuid[], $15::uuid[], $16::uuid[], $17::text[]) AS t (id, key, body, status)
    WHERE key IS NOT NULL
), day_before AS (
    INSERT INTO idempotency_keys (key, day, id, body, status)
    SELECT key, (now() AT TIME ZONE 'UTC')::date - 1, id, body, status
    FROM asked
    WHERE (now() AT TIME ZONE 'UTC')::time < '00:01'
      -- As a scalar sub-select, so that each key is looked up and no day is read as a whole.
      AND (SELECT k.id FROM idempotency_keys k
           WHERE k.key = asked.key AND k.day < (now() AT TIME ZONE 'UTC')::date - 1
           LIMIT 1) IS NULL
    ORDER BY key
    ON CONFLICT (key, day) DO NOTHING
    RETURNING id
), new_keys AS (
    INSERT INTO idempotency_keys (key, day, id, body, status)
    SELECT key, (now() AT TIME ZONE 'UTC')::date, id, body, status
    FROM asked
    WHERE CASE WHEN (now() AT TIME ZONE 'UTC')::time < '00:01'
               THEN id IN (SELECT id FROM day_before)
               ELSE (SELECT k.id FROM idempotency_keys k
                     WHERE k.key = asked.key AND k.day < (now() AT TIME ZONE 'UTC')::date
                     LIMIT 1) IS NULL END
    ORDER BY key
    ON CONFLICT (key, day) DO NOTHING
    RETURNING id
), stored AS (
    INSERT INTO notifications (id, created_at, expires_at, queue, recipient, content, metadata,
                               max_tries, tenant, test_channel, tag, topic)
    SELECT id, (SELECT now FROM clock), (SELECT now FROM clock) + ttl, queue, recipient, content,
           metadata, max_tries, coalesce(tenant, ''), coalesce(test_channel, ''), tag,
           topic
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::smallint[],
                $8::interval[], $15::uuid[], $11::text[], $12::text[], $13::text[], $14::text[])
        AS t (id, queue, recipient, content, metadata, max_tries, ttl, key, tenant, test_channel,
              tag, topic)
    WHERE key IS NULL OR id IN (SELECT id FROM new_keys)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
-- :parts
INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, turn, class, max_tries, queue)
SELECT id, (SELECT now FROM clock), (SELECT now FROM clock) + delay, (SELECT now FROM clock) + delay,
       (SELECT now FROM clock) + ttl, size, coalesce(turn, 0), class, coalesce(max_tries, 0), queue
FROM stored JOIN unnest($1::uuid[], $2::text[], $6::smallint[], $7::interval[], $8::interval[],
                        $9::smallint[], $10::integer[], $18::smallint[])
    AS t (id, queue, max_tries, delay, ttl, class, size, turn) USING (id)
WHERE class IS NOT NULL  -- see insert_suppressed.sql
RETURNING id, date_part('epoch', created_at) AS now
