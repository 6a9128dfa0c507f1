-- Replaces the secret of a webhook. The one before signs, too, for some time.
-- Parameters: $1 id, $2 tenant (null: of the deployment), $3 mode, $4 the secret, $5 for how many
-- seconds the one before signs.
-- Returns: the row, if this tenant has it in this mode.
-- Repeating it with the same secret changes nothing but the end of that time.
UPDATE webhooks SET
    secret = $4::bytea,
    old_secret = CASE WHEN $5::float8 <= 0 THEN NULL WHEN secret = $4::bytea THEN old_secret
                      ELSE secret END,
    old_secret_until = CASE WHEN $5::float8 > 0 THEN now() + $5::float8 * interval '1 second' END
WHERE id = $1 AND tenant IS NOT DISTINCT FROM $2 AND mode = $3
RETURNING *
