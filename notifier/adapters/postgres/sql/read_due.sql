-- Reads rows in the order in which they are due, claimed and expired ones included: a condition on
-- them would let Postgres read on beyond the limit.
-- Parameters: for each range $1 queue, $2 class, $3 and $4 the position (due_at, id) after which it
-- begins, $5 its maximum of rows, $6 the latest due_at (null: any), $7 for how many seconds rows
-- must have been due, $8 turn.
-- Returns: one row per row read, `range` counting the ranges from 1; a single row with a null range
-- if there is none. `now` in seconds since the epoch; `oldest_running` and `next_transaction` are
-- transaction numbers of the snapshot in which all rows were read.
-- (The index live_due has rows of turn >= 0: all of them. Without the condition it is not used.)
-- (The xmax of a snapshot is the number after the last transaction that has ended: later ones may
-- be running. `age` counts from there to the next number.)
SELECT snapshot.*, due.range, due.id, due.due_at, due.claim, due.claimed_by, due.is_expired,
       due.size, due.deaths
FROM (
    SELECT date_part('epoch', now()) AS now,
           pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest_running,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint
               + age(pg_snapshot_xmax(pg_current_snapshot())::xid) AS next_transaction
) snapshot
LEFT JOIN (
    SELECT range.number AS range, l.*
    FROM unnest($1::text[], $2::smallint[], $3::timestamptz[], $4::uuid[], $5::integer[],
                $6::timestamptz[], $7::float8[], $8::smallint[])
        WITH ORDINALITY AS range (queue, class, at, id, max_rows, until, due_for_s, turn, number)
    CROSS JOIN LATERAL (
        SELECT id, due_at, claim, nullif(claimed_by, '00000000-0000-0000-0000-000000000000')
                   AS claimed_by, expires_at <= now() AS is_expired, size, deaths
        FROM live
        WHERE queue = range.queue AND turn = range.turn AND turn >= 0 AND class = range.class
          AND (due_at, id) > (range.at, range.id)
          AND due_at <= least(now() - make_interval(secs => range.due_for_s), range.until)
        ORDER BY due_at, id
        LIMIT range.max_rows
    ) l
) due ON true
