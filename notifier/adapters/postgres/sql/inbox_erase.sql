-- Removes the entries of erased users from their inboxes.
-- Parameters: $1 the tenants, $2 the modes and $3 the users of the inboxes, $4 the instant after which
-- entries may not have been added, $5 ids of notifications, whose entries are removed whoever's they
-- are.
-- Returns: one row per removed entry.
-- Repeating it changes nothing.
-- (An entry that is being added meanwhile is found by its notification, which the erasure and
-- inbox_add.sql lock.)
DELETE FROM inbox_entries
WHERE id = ANY (ARRAY(
    SELECT e.id FROM unnest($1::text[], $2::text[], $3::text[]) AS t (tenant, mode, user_id)
    JOIN inbox_entries e ON e.tenant = t.tenant AND e.mode = t.mode AND e.user_id = t.user_id
    WHERE e.created_at <= $4
    UNION SELECT unnest($5::uuid[])))
RETURNING id
