-- Lets one process at a time count changes, until its transaction ends.
-- Parameters: none.
-- Returns: one row; `is_held` says whether this transaction has the lock, `behind_s` the age of the
-- oldest change that is not counted, in seconds (null: there is none).
SELECT pg_try_advisory_xact_lock(hashtext('notifier.stats')) AS is_held,
       (SELECT greatest(0, date_part('epoch', clock_timestamp() - noted_at))
        FROM stats_changes ORDER BY seq LIMIT 1) AS behind_s
