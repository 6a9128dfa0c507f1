-- Wipes those of these notifications that have ended: address, content, metadata and tag, and what
-- providers answered about them. An empty recipient marks a notification as erased. What is being
-- sent, or waits again meanwhile, stays.
-- Parameters: $1 ids, which erase_lock.sql has locked, $2 and $3 the least and the greatest of them.
-- Returns: one row per wiped notification, with the provider's ids of its messages.
-- Repeating it changes nothing more.
-- (All parts see one snapshot: an attempt that is recorded with the end of its row is wiped with it.)
WITH wiped AS (
    UPDATE notifications n SET recipient = '', content = '', metadata = '{}', tag = NULL
    WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2 AND $3
      AND NOT EXISTS (SELECT FROM live l WHERE l.id = n.id AND l.id = ANY ($1::uuid[]))
    RETURNING id
), answers AS (
    UPDATE attempts SET detail = '', reference = ''
    WHERE id = ANY (ARRAY(SELECT id FROM wiped)) AND id BETWEEN $2 AND $3
      AND (detail <> '' OR reference <> '')
), results AS (
    UPDATE ends SET detail = ''
    WHERE id = ANY (ARRAY(SELECT id FROM wiped)) AND id BETWEEN $2 AND $3 AND detail <> ''
), reported AS (
    UPDATE receipts SET detail = ''
    WHERE id = ANY (ARRAY(SELECT id FROM wiped)) AND id BETWEEN $2 AND $3 AND detail <> ''
), unparked AS (
    DELETE FROM parked WHERE id = ANY (ARRAY(SELECT id FROM wiped))
)
SELECT w.id, ARRAY(SELECT a.reference FROM attempts a
                   WHERE a.id = w.id AND a.id BETWEEN $2 AND $3 AND a.reference <> '') AS refs
FROM wiped w
