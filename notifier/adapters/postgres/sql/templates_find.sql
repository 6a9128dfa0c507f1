-- Finds versions of a tenant's templates.
-- Parameters: $1 tenant, $2 names, $3 their versions (null: the newest one).
-- Returns: one row per name and version that exists.
SELECT ref.name, ref.version, found.id
FROM unnest($2::text[], $3::integer[]) AS ref (name, version)
CROSS JOIN LATERAL (SELECT id FROM templates
                    WHERE tenant = $1 AND name = ref.name
                      AND version BETWEEN coalesce(ref.version, 1) AND coalesce(ref.version, 2147483647)
                    ORDER BY version DESC LIMIT 1) found
