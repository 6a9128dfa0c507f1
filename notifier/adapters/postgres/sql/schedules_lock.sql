-- Makes other transactions that store a schedule of the same tenant and mode wait for the end of this
-- one. A separate statement, so that those after it see what was committed meanwhile.
-- Parameters: $1 tenant, $2 mode.
-- Returns: one row: the time of this transaction.
SELECT now() AS now
FROM pg_advisory_xact_lock(hashtextextended('notifier.schedules ' || $1 || ' ' || $2, 0))
