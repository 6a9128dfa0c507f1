-- What statistics say of the partial index over the rows that wait for the relay.
SELECT coalesce(sum(greatest(child.reltuples, 0)), 0)::bigint AS waiting
FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent = 'notifications_waiting'::regclass
