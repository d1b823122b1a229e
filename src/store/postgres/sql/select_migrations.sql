-- The migrations that were applied, in order.
SELECT version, name, checksum FROM metertrail.schema_migrations ORDER BY version
