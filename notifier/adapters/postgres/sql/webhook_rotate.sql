-- Replaces the secret of a webhook. Those before sign, too, for some time, the last four at most: a
-- request that is repeated because its answer was lost takes none from a receiver.
-- Parameters: $1 id, $2 tenant (null: of the deployment), $3 mode, $4 the secret, $5 for how many
-- seconds the one before signs; 0: none before signs any longer.
-- Returns: the row, if this tenant has it in this mode.
UPDATE webhooks SET
    secret = $4::bytea,
    old_secrets = CASE WHEN $5::float8 > 0 THEN (ARRAY[secret] || old_secrets)[1:4] ELSE '{}' END,
    old_secrets_until = CASE WHEN $5::float8 > 0
        THEN (ARRAY[now() + $5::float8 * interval '1 second'] || old_secrets_until)[1:4]
        ELSE '{}' END
WHERE id = $1 AND tenant IS NOT DISTINCT FROM $2 AND mode = $3
RETURNING *
