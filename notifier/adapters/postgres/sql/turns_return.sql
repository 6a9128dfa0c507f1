-- Moves rows of other turns to turn 0, which workers of the version before read too. A row that is
-- due gets the present time, as cursors have passed its place; its ready_at, by which its wait is
-- measured, stays. A claimed row is moved too: its result finds it by its id. Rows that another
-- process has locked are left out.
-- Parameters: $1 the maximum number of rows.
-- Returns: one row per queue: `queue` and how many rows were `moved`.
-- Repeating it continues with the next ones.
-- (The column of `turns` has the collation "C": compared by that, the index live_due is not searched by
-- its first column, and each turn would read the entries of all queues.)
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now WHERE pg_current_xact_id() IS NOT NULL
), found AS MATERIALIZED (
    SELECT row.id
    FROM turns t
    CROSS JOIN LATERAL (
        SELECT id FROM live
        WHERE queue = t.queue COLLATE "default" AND turn = t.turn AND turn > 0
        LIMIT $1
    ) row
    LIMIT $1
), locked AS MATERIALIZED (
    SELECT id FROM live WHERE id = ANY (ARRAY(SELECT id FROM found)) AND turn > 0
    ORDER BY id
    FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE live SET turn = 0, due_at = greatest(due_at, (SELECT now FROM clock))
    WHERE id = ANY (ARRAY(SELECT id FROM locked))
    RETURNING queue
)
SELECT queue, count(*) AS moved FROM moved GROUP BY queue
