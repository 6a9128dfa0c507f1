-- Stores a blob. One that exists is kept as long as the notifications of today.
-- Parameters: $1 tenant, $2 hash, $3 data, $4 whether it is a whole mail, $5 the
-- addresses in its From (null: it is none).
-- Returns: one row; `is_new` is false if the blob existed.
INSERT INTO blobs AS b (tenant, hash, size, last_day, is_mail, senders, data)
VALUES ($1, $2, octet_length($3::bytea), (now() AT TIME ZONE 'UTC')::date, $4, $5, $3)
ON CONFLICT (tenant, hash) DO UPDATE
    SET last_day = greatest(b.last_day, excluded.last_day), is_mail = b.is_mail OR excluded.is_mail,
        senders = coalesce(excluded.senders, b.senders)
RETURNING xmax = 0 AS is_new
