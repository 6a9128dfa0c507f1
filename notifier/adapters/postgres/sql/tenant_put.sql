-- Stores a tenant, or changes it.
-- Parameters: $1 name, $2 note.
-- Returns: the row, and the note before (null: it is new).
WITH before AS (SELECT note FROM tenants WHERE name = $1)
INSERT INTO tenants (name, note) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET note = excluded.note
RETURNING name, note, created_at, (SELECT note FROM before) AS note_before
