-- Starts a pause without an end, unless there is one: that of a person stays as it is.
-- Parameters: $1 kind, $2 name, $3 note.
-- Returns: one row if the pause was started; listening processes are notified at the commit.
-- Repeating it changes nothing.
WITH changed AS (
    INSERT INTO holds AS h (kind, name, note) VALUES ($1, $2, $3)
    ON CONFLICT (kind, name) DO UPDATE SET note = excluded.note, since = now(), until = NULL
        WHERE h.until <= now()
    RETURNING 1
)
SELECT pg_notify('notifier_controls', '') FROM changed
