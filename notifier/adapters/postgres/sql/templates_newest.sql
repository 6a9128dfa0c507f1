-- Finds the newest version of templates.
-- Parameters: $1 tenant, $2 names without duplicates.
-- Returns: one row per name that has a version.
SELECT t.name, newest.id
FROM unnest($2::text[]) AS t (name)
CROSS JOIN LATERAL (SELECT id FROM templates WHERE tenant = $1 AND name = t.name
                    ORDER BY version DESC LIMIT 1) newest
