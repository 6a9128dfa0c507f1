-- Lets one process at a time judge tags, until its transaction ends.
-- Parameters: none.
-- Returns: one row; `is_held` says whether this transaction has the lock.
SELECT pg_try_advisory_xact_lock(hashtext('notifier.guard')) AS is_held
