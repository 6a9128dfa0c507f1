-- Stores a webhook, unless its tenant is unknown, or has the maximum of webhooks of its mode. The
-- caller holds the lock of webhooks_lock.sql.
-- Parameters: $1 id, $2 tenant (null: of the deployment), $3 mode, $4 URL, $5 events, $6 status,
-- $7 reason, $8 note, $9 secret, $10 the maximum.
-- Returns: the row; none if it was not stored.
INSERT INTO webhooks (id, tenant, mode, url, events, status, reason, note, secret)
SELECT $1::uuid, $2::text, $3, $4, $5::text[], $6, $7, $8, $9::bytea
WHERE ($2::text IS NULL OR $2 = '' OR EXISTS (SELECT FROM tenants WHERE name = $2 FOR KEY SHARE))
  AND (SELECT count(*) FROM webhooks WHERE tenant IS NOT DISTINCT FROM $2 AND mode = $3) < $10
RETURNING *
