-- Removes an incident that is open and of the expected revision. $1 text, $2 uuid: its key. $3 bigint: the revision.
DELETE FROM metertrail.incidents
WHERE tenant_id = $1 AND id = $2 AND state <> 'resolved' AND revision = $3
RETURNING true
