-- Waits until no other operation of a tenant and mode is being stored, and keeps others waiting until
-- the end of the transaction.
-- Parameters: $1 tenant (null: the deployment), $2 mode.
SELECT pg_advisory_xact_lock(hashtext('notifier.operations'), hashtext(concat($2::text, '.', $1::text)))
