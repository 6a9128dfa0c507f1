-- Finds one version of a template.
-- Parameters: $1 tenant, $2 name, $3 version.
-- Returns: at most one row: its id.
SELECT id FROM templates WHERE tenant = $1 AND name = $2 AND version = $3
