-- live:
--   deferrals  attempts with the outcome deferred
--   unspent    other attempts that spent no try: throttled, misconfigured, no call of the provider
--   ambiguous  attempts with the outcome ambiguous
-- breakers:
--   code       the provider's code of the last failure
-- The version before works with these columns, which it does not know: all have a default.
--
-- A constant default changes no row. But the statements wait for those that run, and stop all that
-- come after. So they wait for at most 200 ms each, let the others go on for as long, and repeat.
-- An attempt that fails keeps no lock of either table.
DO $$
BEGIN
    FOR attempt IN 1..300 LOOP
        BEGIN
            SET LOCAL lock_timeout = '200ms';
            ALTER TABLE live
                ADD COLUMN deferrals smallint NOT NULL DEFAULT 0,
                ADD COLUMN unspent smallint NOT NULL DEFAULT 0,
                ADD COLUMN ambiguous smallint NOT NULL DEFAULT 0;
            ALTER TABLE breakers ADD COLUMN code text NOT NULL DEFAULT '';
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 300 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.2);
        END;
    END LOOP;
END
$$;
SET LOCAL lock_timeout = 0;
