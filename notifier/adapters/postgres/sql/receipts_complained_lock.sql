-- Lets one process at a time look which complaints are the first of their notifications, until the end
-- of its transaction.
SELECT pg_advisory_xact_lock(hashtext('notifier.complaints'))
