-- One batch. $1 uuid: writer. $2 bigint: sequence.
SELECT writer_id, sequence, header, manifest, signature
FROM metertrail.audit_batches
WHERE writer_id = $1 AND sequence = $2
