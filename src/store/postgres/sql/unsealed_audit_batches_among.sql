-- Those of some batches that are noted as not sealed by any epoch. $1 uuid[], $2 bigint[]: writers, sequences.
SELECT unsealed.writer_id, unsealed.sequence
FROM unnest($1::uuid[], $2::bigint[]) AS asked (writer_id, sequence)
JOIN metertrail.audit_unsealed AS unsealed
    ON unsealed.writer_id = asked.writer_id AND unsealed.sequence = asked.sequence
