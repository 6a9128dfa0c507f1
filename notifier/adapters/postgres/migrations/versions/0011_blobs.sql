-- The bytes of files, each once for a tenant.
--   hash      SHA-256 of the data
--   size      length of the data in bytes
--   last_day  a day by Postgres's clock in UTC: notifications up to it may refer to the blob
--   is_mail   the data is a whole mail, and was checked to be one
-- The data is stored outside of the row and not compressed: most files are compressed already, and
-- a change of last_day does not write it again.
CREATE TABLE blobs (
    tenant text NOT NULL,
    hash bytea NOT NULL,
    size integer NOT NULL,
    last_day date NOT NULL,
    is_mail boolean NOT NULL DEFAULT false,
    data bytea NOT NULL,
    PRIMARY KEY (tenant, hash)
) WITH (toast_tuple_target = 256);
ALTER TABLE blobs ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX blobs_last_day ON blobs (last_day);
