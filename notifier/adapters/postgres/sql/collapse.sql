-- Ends what newer notifications have replaced, if it waits. What is being sent stays noted: if it has
-- to be tried again, it is ended then. Rows that another process has locked are left out.
-- Parameters: $1 ids of newer notifications (null: all), $2 the maximum number of rows.
-- Returns: one row per ended notification; `age_s` since it was accepted, in seconds.
-- Repeating it changes nothing.
WITH noted AS (
    SELECT id, replaced_by FROM collapsed
    WHERE $1::uuid[] IS NULL OR replaced_by = ANY ($1::uuid[])
    ORDER BY replaced_by, id
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), ended AS (
    DELETE FROM live l USING noted n
    WHERE l.id = ANY (ARRAY(SELECT id FROM noted)) AND l.id = n.id
      AND l.claimed_by = '00000000-0000-0000-0000-000000000000'
    RETURNING l.id, l.claim, l.queue, l.tries, l.created_at, n.replaced_by
), kept AS (
    INSERT INTO ends (id, claim, status, queue, reason, tries, first_at, at, replaced_by)
    SELECT id, claim, 'cancelled', queue, 'collapsed', tries, created_at, now(), replaced_by
    FROM ended e
    WHERE EXISTS (SELECT FROM notifications n WHERE n.id = e.id)
    ON CONFLICT (id) DO NOTHING
), done AS (
    DELETE FROM collapsed c USING noted n
    WHERE c.replaced_by = n.replaced_by AND c.id = n.id
      AND (n.id IN (SELECT id FROM ended) OR NOT EXISTS (SELECT FROM live l WHERE l.id = n.id))
)
-- :parts
SELECT id, queue,
       CASE WHEN isfinite(created_at) THEN date_part('epoch', now() - created_at) ELSE 0 END AS age_s
FROM ended
