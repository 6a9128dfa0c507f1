-- Reads a webhook.
-- Parameters: $1 id, $2 tenant (null: of the deployment), $3 mode.
-- Returns: one row if this tenant has it in this mode.
SELECT * FROM webhooks WHERE id = $1 AND tenant IS NOT DISTINCT FROM $2 AND mode = $3
