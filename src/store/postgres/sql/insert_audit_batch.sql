-- Keeps a batch and notes that no epoch has sealed it.
-- $1 uuid: writer. $2 bigint: sequence. $3 bytea: header. $4 bytea: manifest. $5 bytea: signature or null. $6 timestamptz.
-- Guarantee: fails on a sequence that is taken.
-- Locks: the batch's key, until the end of the transaction.
WITH batch AS (
    INSERT INTO metertrail.audit_batches (writer_id, sequence, header, manifest, signature)
    VALUES ($1, $2, $3, $4, $5)
)
INSERT INTO metertrail.audit_unsealed (writer_id, sequence, sealed_at) VALUES ($1, $2, $6)
