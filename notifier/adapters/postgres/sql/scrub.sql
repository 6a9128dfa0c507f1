-- Removes the contents of those of these notifications that have been final for long enough. The others
-- are noted, to be looked at again: one that is not final yet when it is due and the time is over.
-- Parameters: $1 ids, $2 and $3 the least and the greatest of them, $4 priorities and $5 for how many
-- seconds the contents of each are kept.
-- Returns: one row per notification whose content was removed. If one of them waits again meanwhile
-- (scrub_live.sql), the transaction must be rolled back: this statement does not see what began
-- after it. From now on retry.sql waits for it.
-- Repeating it changes nothing.
-- (LIMIT 1: see read_notifications.sql.)
WITH stored AS MATERIALIZED (
    SELECT n.id, n.expires_at, k.keep_s * interval '1 second' AS keep
    FROM notifications n
    JOIN unnest($4::text[], $5::double precision[]) AS k (priority, keep_s)
        ON n.queue LIKE '%.' || k.priority
    WHERE n.id = ANY ($1::uuid[]) AND n.id BETWEEN $2 AND $3 AND n.content <> ''
), known AS MATERIALIZED (
    SELECT s.id, s.keep, l.id IS NOT NULL AS is_live,
           CASE WHEN l.id IS NOT NULL THEN l.due_at ELSE coalesce(e.at, a.at, s.expires_at) END AS at
    FROM stored s
    LEFT JOIN LATERAL (SELECT id, due_at FROM live WHERE id = s.id LIMIT 1) l ON true
    LEFT JOIN LATERAL (SELECT at FROM ends WHERE id = s.id AND id BETWEEN $2 AND $3 LIMIT 1) e ON true
    CROSS JOIN LATERAL (SELECT max(finished_at) AS at FROM attempts
                        WHERE id = s.id AND id BETWEEN $2 AND $3) a
), scrubbed AS (
    UPDATE notifications SET content = ''
    WHERE id = ANY (ARRAY(SELECT id FROM known WHERE NOT is_live AND at + keep <= now()))
      AND id BETWEEN $2 AND $3
    RETURNING id
), later AS (
    INSERT INTO scrub_later AS l (id, due_at)
    SELECT id, greatest(at + keep, now() + interval '60 s') FROM known
    WHERE is_live OR (at + keep <= now()) IS NOT TRUE
    ON CONFLICT (id) DO UPDATE SET due_at = excluded.due_at
), forgotten AS (
    DELETE FROM scrub_later
    WHERE id = ANY ($1::uuid[])
      AND id NOT IN (SELECT id FROM known WHERE is_live OR (at + keep <= now()) IS NOT TRUE)
)
SELECT id FROM scrubbed
