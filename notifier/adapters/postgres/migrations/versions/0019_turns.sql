-- The turns other than 0 that rows of a queue were ever stored in: column `turn` of `live`. A row is
-- written here before the first row of `live` with its turn is, and is never deleted: so whoever
-- reads the rows of a queue knows where to look. Processes of the version before do not know the
-- table, and no turn other than 0 is used while one of them sends.
CREATE TABLE turns (
    queue text COLLATE "C" NOT NULL,
    turn smallint NOT NULL,
    PRIMARY KEY (queue, turn)
);

-- tenants:
--   rate_per_s  notifications that the keys of a tenant may submit in a second; null: no limit
-- The version before works with this column, which it does not know, and holds no tenant to its rate.
-- As in 0008, each try waits for at most 200 ms.
DO $$
BEGIN
    FOR attempt IN 1..300 LOOP
        BEGIN
            SET LOCAL lock_timeout = '200ms';
            ALTER TABLE tenants ADD COLUMN rate_per_s float8;
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
