-- Estimates how many rows wait for the relay, without counting them.
-- Parameters: none.
-- Returns: one row, `waiting`: the planner's statistics of the partial index over the waiting rows,
-- summed over all days. They may be minutes old.
SELECT coalesce(sum(greatest(child.reltuples, 0)), 0)::bigint AS waiting
FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent = 'notifications_waiting'::regclass
