-- Takes or keeps the right to turn events into calls of webhooks. Without any webhook, what was
-- reached is forgotten: a later webhook is called only with events after it was made. Until no call
-- waits any more they are counted, see estimate_backlog.sql.
-- Parameters: $1 this process, $2 for how many seconds.
-- Returns: one row if this process has the right: the `cursor`, and `since`, from when events are read
-- without one (null: there is no webhook); `is_shared`: several tenants have webhooks. None if another process has it, or nothing is to be done.
WITH oldest AS MATERIALIZED (
    SELECT min(created_at) AS since, count(DISTINCT coalesce(tenant, '*')) > 1 AS is_shared
    FROM webhooks
)
UPDATE webhook_fanout f SET
    holder = $1::uuid, held_until = now() + $2::float8 * interval '1 second',
    cursor = CASE WHEN since IS NOT NULL THEN cursor END
FROM oldest
WHERE (held_until <= now() OR holder = $1::uuid)
  AND (since IS NOT NULL OR cursor IS NOT NULL OR waiting > 0)
RETURNING f.cursor, since, is_shared
