-- Whether every transaction has ended that ran when an operation was stored: what those have stored
-- can be seen. A transaction of some other program may run for hours; none of ours takes so long.
-- Parameters: $1 the number of the transaction that stored it, $2 when that was, $3 how many seconds
-- the longest transaction of ours takes.
SELECT pg_snapshot_xmin(pg_current_snapshot()) > $1::text::xid8
       OR now() > $2::timestamptz + $3::double precision * interval '1 second' AS is_settled
