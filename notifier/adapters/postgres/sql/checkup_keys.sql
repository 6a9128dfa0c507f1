-- Finds the keys that hold.
-- Parameters: none.
-- Returns: one row per key: its `id`, and `left_s` until it expires (null: never).
SELECT id, extract(epoch FROM expires_at - now())::float8 AS left_s
FROM keys WHERE expires_at IS NULL OR expires_at > now() ORDER BY expires_at, id
