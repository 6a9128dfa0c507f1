-- Finds which tags are counted by themselves in some hours.
-- Parameters: $1 hours, $2 tenants, $3 whether of tests, $4 the step.
-- Returns: one row per hour, tenant, mode and tag.
SELECT DISTINCT s.at, s.tenant, s.is_test, s.tag
FROM (SELECT DISTINCT at, tenant, is_test
      FROM unnest($1::timestamptz[], $2::text[], $3::boolean[]) AS t (at, tenant, is_test)) AS t
JOIN stats s ON s.step = $4 AND s.at = t.at AND s.tenant = t.tenant AND s.is_test = t.is_test
WHERE s.tag <> ''
