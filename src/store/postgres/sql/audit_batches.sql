-- Batches in the order of their writers and sequences. $1 uuid, $2 bigint: after this one. $3 bigint: how many at most.
SELECT writer_id, sequence, header, manifest, signature
FROM metertrail.audit_batches
WHERE (writer_id, sequence) > ($1, $2)
ORDER BY writer_id, sequence
LIMIT $3
