-- Makes other transactions that add a version of the same template wait for the end of this one.
-- Parameters: $1 tenant, $2 name.
SELECT pg_advisory_xact_lock(hashtextextended('notifier.template ' || $1 || ' ' || $2, 0))
