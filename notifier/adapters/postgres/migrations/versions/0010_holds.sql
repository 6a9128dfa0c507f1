-- Pauses of tags and tenants: see domain/holds.py. (A new value of the type pause_kind would be an
-- error for processes of the version before, which do not read this table.)
--   kind   'tag' or 'tenant'
--   until  null: until somebody resumes
CREATE TABLE holds (
    kind text NOT NULL,
    name text NOT NULL,
    note text NOT NULL DEFAULT '',
    since timestamptz NOT NULL DEFAULT now(),
    until timestamptz,
    PRIMARY KEY (kind, name)
);

-- Times of day such as 21:00, by the clock on the wall in the time zone.
--   tenant  '' for the default one
CREATE TABLE quiet_hours (
    tenant text NOT NULL PRIMARY KEY,
    starts_at text NOT NULL,
    ends_at text NOT NULL,
    time_zone text NOT NULL
);

-- Which pause of `holds` a waiting row was parked by. A row stays here until the pause has ended.
CREATE TABLE parked (
    id uuid NOT NULL PRIMARY KEY,
    kind text NOT NULL,
    name text NOT NULL
) WITH (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05);
