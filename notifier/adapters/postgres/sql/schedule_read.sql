-- Reads a schedule.
-- Parameters: $1 id, $2 tenant, $3 mode.
-- Returns: one row if this tenant has it in this mode.
SELECT * FROM schedules WHERE id = $1 AND tenant = $2 AND mode = $3
