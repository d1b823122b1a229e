-- Batches that no epoch has sealed, the oldest first. $1 bigint: how many at most. A marker without a batch is none.
SELECT batches.writer_id, batches.sequence, batches.header, batches.manifest, batches.signature
FROM metertrail.audit_unsealed AS unsealed
JOIN metertrail.audit_batches AS batches
    ON batches.writer_id = unsealed.writer_id AND batches.sequence = unsealed.sequence
ORDER BY unsealed.sealed_at, unsealed.writer_id, unsealed.sequence
LIMIT $1
