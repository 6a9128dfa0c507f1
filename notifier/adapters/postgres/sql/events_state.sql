-- Reads which history of Postgres this is, and which events are kept.
-- Returns: one row. `timeline` changes when a standby takes over and after a recovery to a point in
-- time, `system_identifier` in another cluster. `oldest_day` is the first partition, YYYYMMDD, null
-- without any; the events of that day are no longer read, so that one may be dropped at any time.
-- `beyond` and `running` are the snapshot.
SELECT (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database,
       left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline,
       (SELECT min(right(c.relname, 8)) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
        WHERE inhparent = 'event_batches'::regclass) AS oldest_day,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS beyond,
       ARRAY(SELECT x::text::bigint FROM pg_snapshot_xip(pg_current_snapshot()) AS x ORDER BY x)
           AS running,
       clock_timestamp() AS now
