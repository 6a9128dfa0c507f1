-- Returns: one row: `snapshot` is what is visible now. `timeline` changes when a standby takes over and
-- after a recovery to a point in time.
SELECT pg_current_snapshot()::text AS snapshot,
       left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline
