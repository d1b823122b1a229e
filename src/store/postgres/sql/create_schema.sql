-- The schema and the table of its migrations. Run under lock_migrations.
CREATE SCHEMA IF NOT EXISTS metertrail;
CREATE TABLE IF NOT EXISTS metertrail.schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
