-- End a pause. One that had expired is none, though its row is removed.
WITH changed AS (
    DELETE FROM pauses WHERE kind = $1::text::pause_kind AND name = $2
    RETURNING expires_at IS NULL OR expires_at > now() AS has_held
)
SELECT pg_notify('notifier_controls', '') FROM changed WHERE has_held
