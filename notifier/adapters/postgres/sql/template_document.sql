-- Reads one version of a template.
-- Parameters: $1 tenant, $2 name, $3 version.
-- Returns: at most one row: its document as submitted.
SELECT document FROM templates WHERE tenant = $1 AND name = $2 AND version = $3
