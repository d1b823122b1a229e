-- Batches that no epoch has sealed, the oldest first. $1 bigint: how many at most.
SELECT batches.writer_id, batches.sequence, batches.header, batches.manifest, batches.signature
FROM (
    SELECT writer_id, sequence, sealed_at
    FROM metertrail.audit_unsealed
    ORDER BY sealed_at, writer_id, sequence
    LIMIT $1
) AS unsealed
JOIN metertrail.audit_batches AS batches
    ON batches.writer_id = unsealed.writer_id AND batches.sequence = unsealed.sequence
ORDER BY unsealed.sealed_at, unsealed.writer_id, unsealed.sequence
