-- Lists the days that have a partition.
-- Parameters: none.
-- Returns: one row per day, `day` as YYYYMMDD, oldest first.
SELECT right(child.relname, 8) AS day
FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent = 'notifications'::regclass
ORDER BY day
