-- Stores a tenant, or changes it, unless its name is that of a deleted one (deleted_tenants).
-- Parameters: $1 name, $2 note.
-- Returns: the row, and the note before (null: it is new); none if it was not stored.
WITH before AS (SELECT note FROM tenants WHERE name = $1)
INSERT INTO tenants (name, note)
SELECT $1, $2
WHERE EXISTS (SELECT FROM before) OR NOT EXISTS (SELECT FROM deleted_tenants WHERE name = $1)
ON CONFLICT (name) DO UPDATE SET note = excluded.note
RETURNING name, note, created_at, (SELECT note FROM before) AS note_before
