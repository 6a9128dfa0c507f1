-- Returns: one row with what is visible now.
SELECT pg_current_snapshot()::text AS snapshot
