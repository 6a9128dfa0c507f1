-- Locks a tenant until the end of the transaction: its changes, its end and its new keys are made one
-- after the other. A separate statement, so that those after it see what was committed meanwhile.
-- Parameters: $1 name.
-- Returns: one row, if there is such a tenant.
SELECT name FROM tenants WHERE name = $1 FOR UPDATE
