-- Stores a blob. One that exists is kept as long as the notifications of today.
-- Parameters: $1 tenant, $2 hash, $3 data, $4 whether it is a whole mail.
-- Returns: one row; `is_new` is false if the blob existed.
INSERT INTO blobs AS b (tenant, hash, size, last_day, is_mail, data)
VALUES ($1, $2, octet_length($3::bytea), (now() AT TIME ZONE 'UTC')::date, $4, $3)
ON CONFLICT (tenant, hash) DO UPDATE
    SET last_day = greatest(b.last_day, excluded.last_day), is_mail = b.is_mail OR excluded.is_mail
RETURNING xmax = 0 AS is_new
