-- Reads which of the coming days have a partition in every partitioned table.
-- Parameters: $1 the tables, $2 how many days ahead to check.
-- Returns: one row per such day, `ahead` in days from today (UTC), which is 0.
SELECT n AS ahead FROM generate_series(0, $2::integer) AS n
WHERE cardinality($1::text[]) = (
    SELECT count(*) FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent IN (SELECT to_regclass(name) FROM unnest($1::text[]) AS t (name))
      AND right(child.relname, 8) = to_char((now() AT TIME ZONE 'UTC')::date + n, 'YYYYMMDD')
)
