-- Removes what is left of deleted tenants of which no notification is stored any more: templates,
-- suppressions, entries of inboxes, roll-ups, and schedules, which only a process of an earlier version
-- leaves. A tenant of which nothing is left is forgotten, so that its name is free.
-- Parameters: $1 the oldest day that is kept, $2 how many templates, suppressions, schedules, roll-ups
-- and entries, are removed at most.
-- Returns: one row per forgotten tenant.
-- Repeating it continues with the next ones.
WITH old AS MATERIALIZED (
    SELECT name FROM deleted_tenants
    -- A day later: a process may accept notifications of a tenant for some seconds after its end.
    WHERE (deleted_at AT TIME ZONE 'UTC')::date + 1 < $1::date
      AND name NOT IN (SELECT name FROM tenants) AND name <> ''
), gone_templates AS (
    DELETE FROM templates WHERE id IN (
        SELECT t.id FROM old JOIN templates t ON t.tenant = old.name LIMIT $2)
), gone_suppressions AS (
    DELETE FROM suppressions WHERE id IN (
        SELECT s.id FROM old JOIN suppressions s ON s.tenant = old.name LIMIT $2)
), gone_webhooks AS (
    DELETE FROM webhooks WHERE id IN (
        SELECT w.id FROM old JOIN webhooks w ON w.tenant = old.name LIMIT $2)
), gone_schedules AS (
    DELETE FROM schedules WHERE id IN (
        SELECT s.id FROM old JOIN schedules s ON s.tenant = old.name LIMIT $2)
), gone_stats AS (
    DELETE FROM stats WHERE ctid = ANY (ARRAY(
        SELECT s.ctid FROM old JOIN stats s ON s.tenant = old.name LIMIT $2))
), gone_entries AS (
    DELETE FROM inbox_entries WHERE id IN (
        SELECT e.id FROM old JOIN inbox_entries e ON e.tenant = old.name LIMIT $2)
)
DELETE FROM deleted_tenants d USING old
WHERE d.name = old.name
  AND NOT EXISTS (SELECT FROM keys WHERE tenant = d.name)
  AND NOT EXISTS (SELECT FROM templates WHERE tenant = d.name)
  AND NOT EXISTS (SELECT FROM suppressions WHERE tenant = d.name)
  AND NOT EXISTS (SELECT FROM schedules WHERE tenant = d.name)
  AND NOT EXISTS (SELECT FROM webhooks WHERE tenant = d.name)
  AND NOT EXISTS (SELECT FROM inbox_entries WHERE tenant = d.name)
  AND NOT EXISTS (SELECT FROM blobs WHERE tenant = d.name)
  AND NOT EXISTS (SELECT FROM stats WHERE tenant = d.name)
RETURNING d.name
