-- Makes other transactions that store a webhook of the same tenant and mode wait for the end of this
-- one. A separate statement, so that those after it see what was committed meanwhile.
-- Parameters: $1 tenant (null: of the deployment), $2 mode.
SELECT pg_advisory_xact_lock(hashtextextended('notifier.webhooks ' || coalesce($1::text, '*') || ' ' || $2::text, 0))
