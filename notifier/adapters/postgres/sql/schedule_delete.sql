-- Removes a schedule.
-- Parameters: $1 id, $2 tenant, $3 mode.
-- Returns: the row, if this tenant had it in this mode.
DELETE FROM schedules WHERE id = $1 AND tenant = $2 AND mode = $3 RETURNING *
