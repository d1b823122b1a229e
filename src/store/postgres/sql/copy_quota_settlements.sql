-- Notes which units the events of a batch used up.
COPY metertrail.quota_settlements (tenant_id, batch_id, quota, window_type, window_start, holder_id, amount)
FROM STDIN (FORMAT binary)
