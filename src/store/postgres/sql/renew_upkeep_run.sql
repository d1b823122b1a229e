-- Prolongs a lease. $1 text: task. $2 bigint: token. $3 timestamptz: until. Answers a row if the task is held under it.
UPDATE metertrail.upkeep_tasks
SET lease_until = greatest(lease_until, $3)
WHERE task = $1 AND token = $2 AND status = 'running'
RETURNING task
