-- The turns other than 0 that rows of a queue were ever stored in: column `turn` of `live`. A row is
-- written here before the first row of `live` with its turn is, and is never deleted: so whoever
-- reads the rows of a queue knows where to look. Processes of the version before do not know the
-- table, and no turn other than 0 is used while one of them sends.
CREATE TABLE turns (
    queue text COLLATE "C" NOT NULL,
    turn smallint NOT NULL,
    PRIMARY KEY (queue, turn)
);
