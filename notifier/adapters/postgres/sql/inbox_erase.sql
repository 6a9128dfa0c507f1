-- Removes the entries of erased users from their inboxes.
-- Parameters: $1 tenants, $2 mode, $3 users, $4 the instant after which entries may not have been
-- added, $5 ids of notifications, whose entries are removed whoever's they are.
-- Returns: one row per removed entry.
-- Repeating it changes nothing.
-- (An entry that is being added meanwhile is found by its notification, which erase_lock.sql and
-- inbox_add.sql lock.)
DELETE FROM inbox_entries
WHERE id = ANY (ARRAY(
    SELECT id FROM inbox_entries
    WHERE tenant = ANY ($1::text[]) AND mode = $2 AND user_id = ANY ($3::text[]) AND created_at <= $4
    UNION SELECT unnest($5::uuid[])))
RETURNING id
