-- Provider $1 said "too fast": 0.7 of what is left of its rate by now, at most once a second.
-- The factor is 1 only before the first cut.
UPDATE provider_rates SET
    factor = greatest(0.05, 0.7 * least(
        1, factor + 0.05 * greatest(0, extract(epoch FROM clock_timestamp() - factor_at))
    )),
    factor_at = clock_timestamp()
WHERE provider = $1
    AND (factor = 1 OR factor_at NOT BETWEEN clock_timestamp() - interval '1 s' AND clock_timestamp())
RETURNING factor
