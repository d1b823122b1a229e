-- The latest runs of a task. $1 text: task. $2 bigint: how many at most.
SELECT task, token, due_at, attempt, owner, status, started_at, finished_at, rows, error
FROM metertrail.upkeep_runs
WHERE task = $1
ORDER BY token DESC
LIMIT $2
