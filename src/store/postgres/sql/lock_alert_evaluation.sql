-- The generation of a scope's turn. $1 text: the scope.
-- Locks: the scope's row until the end of the transaction, so that no later turn begins meanwhile.
SELECT generation
FROM metertrail.alert_evaluations
WHERE scope = $1
FOR UPDATE
