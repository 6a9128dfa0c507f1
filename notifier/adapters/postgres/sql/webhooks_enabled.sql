-- Reads the webhooks of some tenants that are enabled, without what signs their calls.
-- Parameters: $1 tenants, $2 whether those of the deployment are read, too, $3 the modes that this
-- version knows.
SELECT id, tenant, mode, url, events, status, reason, note, created_at, last_success_at,
       last_failure_at, failing_since
FROM webhooks
WHERE status = 'enabled' AND mode = ANY ($3::text[]) AND (tenant = ANY ($1::text[]) OR (tenant IS NULL AND $2))
ORDER BY id
