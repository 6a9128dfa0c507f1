-- Reads all keys, also expired ones.
-- Parameters: $1 the tenant, $2 whether keys of all tenants and of the deployment are read.
-- Returns: one row per key, the oldest first.
SELECT id, digest, tenant, mode, scopes, rate_per_s, note, created_by, created_at, expires_at,
       last_used_at
FROM keys WHERE $2 OR tenant = $1 ORDER BY created_at, id
