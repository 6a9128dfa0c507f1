-- Finds the queues of a list that have a due row at or after given times.
-- Parameters: for each turn of a queue $1 the queue, $2 to $5 the time for each of the classes 0 to
-- 3, in seconds since the epoch: their encoding costs a tenth of that of timestamps; $6 the turn.
-- Returns: one row per turn found with the name of its queue, a single row with a null queue if there
-- is none; `now` in seconds since the epoch.
-- Claimed and expired rows count. Rows of class 3 must have been due for 2 s, see read_due.sql.
SELECT clock.now, found.queue
FROM (SELECT date_part('epoch', now()) AS now) clock
LEFT JOIN (
    SELECT asked.queue
    FROM unnest($1::text[], $2::float8[], $3::float8[], $4::float8[], $5::float8[],
                $6::smallint[])
        AS asked (queue, back, first, retry, direct, turn)
    CROSS JOIN LATERAL (
        SELECT FROM (
            VALUES (0, interval '0', asked.back), (1, interval '0', asked.first),
                   (2, interval '0', asked.retry), (3, interval '2 seconds', asked.direct)
        ) AS c (class, due_for, at)
        CROSS JOIN LATERAL (
            SELECT FROM live
            WHERE queue = asked.queue AND turn = asked.turn AND turn >= 0 AND class = c.class
              AND due_at >= to_timestamp(c.at) AND due_at <= now() - c.due_for
            ORDER BY due_at, id
            LIMIT 1
        ) due
        LIMIT 1
    ) row
) found ON true
