-- Removes the entries of erased notifications from the inboxes of their recipients.
-- Parameters: $1 ids of the notifications.
-- Repeating it changes nothing.
-- (An entry that is being added meanwhile is found by its notification, which the erasure and
-- inbox_add.sql lock.)
DELETE FROM inbox_entries WHERE id = ANY ($1::uuid[])
