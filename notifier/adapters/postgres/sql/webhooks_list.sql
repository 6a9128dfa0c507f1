-- Reads the webhooks of a tenant and mode, the oldest first.
-- Parameters: $1 tenant (null: those of the deployment), $2 mode.
SELECT * FROM webhooks WHERE tenant IS NOT DISTINCT FROM $1 AND mode = $2 ORDER BY id
