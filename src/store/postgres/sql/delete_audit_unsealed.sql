-- Takes the markers of batches away that an epoch seals; answers a row for each. $1 uuid[], $2 bigint[]: writers, sequences.
-- Locks: the markers, until the end of the transaction.
DELETE FROM metertrail.audit_unsealed AS unsealed
USING unnest($1::uuid[], $2::bigint[]) AS sealed (writer_id, sequence)
WHERE unsealed.writer_id = sealed.writer_id AND unsealed.sequence = sealed.sequence
RETURNING unsealed.sequence
