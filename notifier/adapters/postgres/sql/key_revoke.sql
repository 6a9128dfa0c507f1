-- Removes a key, and what is left of its rate.
-- Parameters: $1 id, $2 the tenant that it must belong to, $3 whether any key may be removed.
-- Returns: the row, if it was removed; all processes are notified.
WITH gone AS (
    DELETE FROM keys WHERE id = $1 AND ($3 OR tenant = $2) RETURNING *
), unused AS (
    DELETE FROM key_rates WHERE key IN (SELECT id FROM gone)
)
SELECT gone.*, pg_notify('notifier_keys', '') FROM gone
