-- How each task stands: its latest run, and its latest success.
SELECT runs.task, runs.token, runs.due_at, runs.attempt, runs.owner, runs.status, runs.started_at, runs.finished_at,
    runs.rows, runs.error, tasks.lease_until, tasks.retry_at, tasks.last_success_due_at, tasks.last_success_at
FROM metertrail.upkeep_tasks AS tasks
JOIN metertrail.upkeep_runs AS runs ON runs.task = tasks.task AND runs.token = tasks.token
ORDER BY tasks.task
