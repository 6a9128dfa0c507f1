-- Lowers a provider's rate after a "too many requests" response, at most once in $5 seconds.
-- Parameters: $1 provider, $2 the factor by which the rate is cut, $3 the least factor that
-- remains, $4 the growth of the factor per second, $5 the interval between cuts in seconds.
-- Returns: one row if the rate was cut.
-- Repeating it within $5 seconds changes nothing. (`factor` is 1 only before the first cut.)
UPDATE provider_rates SET
    factor = greatest($3::float8, $2::float8 * least(
        1, factor + $4::float8 * greatest(0, extract(epoch FROM clock_timestamp() - factor_at))
    )),
    factor_at = clock_timestamp()
WHERE provider = $1
    AND (factor = 1 OR factor_at NOT BETWEEN clock_timestamp() - make_interval(secs => $5::float8)
                                AND clock_timestamp())
RETURNING factor
