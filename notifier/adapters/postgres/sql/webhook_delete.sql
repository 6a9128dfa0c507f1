-- Removes a webhook. Its calls that wait fail when they are due.
-- Parameters: $1 id, $2 tenant (null: of the deployment), $3 mode.
-- Returns: the row, if this tenant had it in this mode.
DELETE FROM webhooks WHERE id = $1 AND tenant IS NOT DISTINCT FROM $2 AND mode = $3 RETURNING *
