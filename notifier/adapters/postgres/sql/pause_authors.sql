-- Finds who began pauses.
-- Parameters: $1 the targets of their entries in the audit, $2 when the oldest of them began, $3 the
-- maximum number of entries to read, the newest first.
-- Returns: one row per pause of which an entry was read, with the actor of its newest one.
-- (An id is made a moment before its entry, by the clock of another machine.)
SELECT target, (array_agg(actor ORDER BY id DESC))[1] AS actor
FROM (
    SELECT id, action, target, actor FROM audit
    WHERE id >= uuid_at($2::timestamptz - interval '1 minute')
    ORDER BY id DESC LIMIT $3
) AS entry
WHERE action = 'pause.created' AND target = ANY ($1::text[])
GROUP BY target
