-- Finds blobs, and keeps them as long as the notifications of today.
-- Parameters: $1 tenant, $2 hashes.
-- Returns: one row for each that exists. A blob that is being removed at this moment does not exist:
-- the update waits for the removal, and then finds no row.
WITH found AS MATERIALIZED (
    SELECT hash, size, is_mail, senders, last_day FROM blobs WHERE tenant = $1 AND hash = ANY ($2::bytea[])
), kept AS (
    UPDATE blobs b SET last_day = (now() AT TIME ZONE 'UTC')::date
    FROM found f
    WHERE b.tenant = $1 AND b.hash = ANY ($2::bytea[]) AND b.hash = f.hash
      AND f.last_day < (now() AT TIME ZONE 'UTC')::date
    RETURNING b.hash
)
SELECT hash, size, is_mail, senders FROM found
WHERE last_day >= (now() AT TIME ZONE 'UTC')::date OR hash IN (SELECT hash FROM kept)
