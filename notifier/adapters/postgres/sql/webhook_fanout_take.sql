-- Takes or keeps the right to turn events into calls of webhooks. Without any webhook, what was
-- reached is forgotten: a later webhook is called only with events after it was made.
-- Parameters: $1 this process, $2 for how many seconds.
-- Returns: one row if this process has the right: the `cursor`, and `since`, from when events are read
-- without one (null: there is no webhook). None if another process has it, or nothing is to be done.
WITH oldest AS MATERIALIZED (
    SELECT min(created_at) AS since FROM webhooks
)
UPDATE webhook_fanout f SET
    holder = $1::uuid, held_until = now() + $2::float8 * interval '1 second',
    cursor = CASE WHEN since IS NOT NULL THEN cursor END,
    waiting = CASE WHEN since IS NOT NULL THEN waiting ELSE 0 END
FROM oldest
WHERE (held_until <= now() OR holder = $1::uuid) AND (since IS NOT NULL OR cursor IS NOT NULL)
RETURNING f.cursor, since
