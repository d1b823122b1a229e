-- Notes a migration as applied. $1 integer: version. $2 text: name. $3 text: checksum, SHA-256 in hexadecimal.
INSERT INTO metertrail.schema_migrations (version, name, checksum) VALUES ($1, $2, $3)
