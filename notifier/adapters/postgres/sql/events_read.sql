-- Reads rows of events that a reader has not seen: those of transactions that ran when it read
-- last, and those of later ones.
-- Parameters: $1 the transactions that ran, $2 the first one of which it has seen none, $3 the one of
-- which it has seen a part (0: none), $4 how many rows to read at least.
-- Returns: the snapshot of this read in every row: `beyond` and `running`; rows whose `xid` is not
-- null: events, in `part` 0 those of $3, in 1 those of $1, in 2 the later ones. Of parts 1 and 2 at
-- least $4 rows are returned if there are so many, and never a part of a transaction.
-- (What was visible to this statement is what its own snapshot shows. A row whose xmin is not the
-- transaction that it names is of another history: a dump brought it here.)
WITH snapshot AS MATERIALIZED (
    SELECT pg_current_snapshot() AS s
), present AS MATERIALIZED (
    SELECT pg_snapshot_xmax(s)::text::bigint AS beyond,
           ARRAY(SELECT x::text::bigint FROM pg_snapshot_xip(s) AS x ORDER BY x) AS running
    FROM snapshot
), found AS (
    (SELECT 0 AS part, b.* FROM event_batches b
     WHERE xid = $3 AND b.xmin::text::bigint = xid & 4294967295)
    UNION ALL
    (SELECT 1, b.* FROM event_batches b
     WHERE xid = ANY ($1::bigint[]) AND xid <> $3 AND b.xmin::text::bigint = xid & 4294967295
     ORDER BY xid FETCH FIRST ($4) ROWS WITH TIES)
    UNION ALL
    (SELECT 2, b.* FROM event_batches b
     WHERE xid >= $2 AND xid < (SELECT beyond FROM present) AND xid <> $3
       AND b.xmin::text::bigint = xid & 4294967295
     ORDER BY xid FETCH FIRST ($4) ROWS WITH TIES)
)
SELECT p.beyond, p.running, clock_timestamp() AS now, f.part, f.xid, f.at, f.type, f.reason, f.ids,
       f.claims, f.tries, f.tenant, f.mode, f.documents
FROM present p LEFT JOIN found f ON true
ORDER BY f.part, f.xid, f.at, f.ids[1]
