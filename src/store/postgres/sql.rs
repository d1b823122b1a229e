//! The statements, one file each, and the types of their parameters.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) const $name: &str = include_str!(concat!("sql/", $file, ".sql"));)*
    };
}

statements! {
    ADD_COSTS = "add_costs";
    APPEND_EVENTS = "append_events";
    APPLY_COSTS = "apply_costs";
    AUDIT_BATCHES = "audit_batches";
    AUDIT_EPOCHS = "audit_epochs";
    AUDIT_HEADS = "audit_heads";
    AUDIT_ROWS = "audit_rows";
    AUDIT_ROWS_BY_KEY = "audit_rows_by_key";
    AUDIT_SUBJECT_KEY = "audit_subject_key";
    AUDIT_TENANTS = "audit_tenants";
    AUDIT_TRAIL = "audit_trail";
    AUDIT_TREE_LEAVES = "audit_tree_leaves";
    AUDIT_TREE_LEAVES_BY_KEY = "audit_tree_leaves_by_key";
    AUDIT_TREE_NODES = "audit_tree_nodes";
    BEGIN = "begin";
    CAP_QUOTA_SLICES = "cap_quota_slices";
    CLAIM_IDEMPOTENCY_KEYS = "claim_idempotency_keys";
    COPY_AUDIT_EVENTS = "copy_audit_events";
    COPY_AUDIT_TREE = "copy_audit_tree";
    COPY_EVENTS = "copy_events";
    COPY_IDEMPOTENCY_KEYS = "copy_idempotency_keys";
    COPY_JOURNAL = "copy_journal";
    COPY_QUOTA_SETTLEMENTS = "copy_quota_settlements";
    COSTS_BY_MODEL = "costs_by_model";
    COSTS_BY_PROVIDER = "costs_by_provider";
    CREATE_SCHEMA = "create_schema";
    DELETE_AUDIT_SUBJECT = "delete_audit_subject";
    DELETE_AUDIT_UNSEALED = "delete_audit_unsealed";
    DELETE_USAGE_METRICS = "delete_usage_metrics";
    DETACHED_USAGE_DAYS = "detached_usage_days";
    DRIFTING_QUOTA_SLICES = "drifting_quota_slices";
    ENSURE_AUDIT_PARTITION = "ensure_audit_partition";
    ENSURE_USAGE_PARTITION = "ensure_usage_partition";
    EVENTS = "events";
    GRANT_QUOTA_SLICES = "grant_quota_slices";
    INSERT_AUDIT_BATCH = "insert_audit_batch";
    INSERT_AUDIT_EPOCH = "insert_audit_epoch";
    INSERT_MIGRATION = "insert_migration";
    LATEST_AUDIT_EPOCH = "latest_audit_epoch";
    LOCK_AUDIT_SUBJECT = "lock_audit_subject";
    LOCK_MIGRATIONS = "lock_migrations";
    LOCK_QUOTAS = "lock_quotas";
    LOCK_QUOTA_SLICES = "lock_quota_slices";
    LOCK_USAGE_METRICS = "lock_usage_metrics";
    MISSING_AUDIT_PARTITIONS = "missing_audit_partitions";
    MISSING_USAGE_PARTITIONS = "missing_usage_partitions";
    PUT_AUDIT_HEADS = "put_audit_heads";
    PUT_AUDIT_SUBJECT_KEY = "put_audit_subject_key";
    PUT_QUOTA_OVERRIDE = "put_quota_override";
    PUT_QUOTA_PLAN = "put_quota_plan";
    QUOTA_CHANGES = "quota_changes";
    QUOTA_OVERRIDES = "quota_overrides";
    QUOTA_PLANS = "quota_plans";
    QUOTA_REVISIONS = "quota_revisions";
    QUOTA_SLICES = "quota_slices";
    QUOTA_TENANT = "quota_tenant";
    QUOTA_USAGE = "quota_usage";
    RELEASE_IDEMPOTENCY_KEYS = "release_idempotency_keys";
    REMOVE_QUOTA_OVERRIDE = "remove_quota_override";
    RENEW_QUOTA_SLICES = "renew_quota_slices";
    RETURN_QUOTA_SLICES = "return_quota_slices";
    REWRITE_USAGE_METRICS = "rewrite_usage_metrics";
    ROLL_UP = "roll_up";
    SELECT_AUDIT_BATCH = "select_audit_batch";
    SELECT_EVENTS_BY_ID = "select_events_by_id";
    SELECT_IDEMPOTENCY_KEYS = "select_idempotency_keys";
    SELECT_MIGRATIONS = "select_migrations";
    SET_AUDIT_HOLD = "set_audit_hold";
    SET_QUOTA_PLAN = "set_quota_plan";
    SET_QUOTA_ZONE = "set_quota_zone";
    SUMMARY = "summary";
    TOP_CONSUMERS_BY_CALLS = "top_consumers_by_calls";
    TOP_CONSUMERS_BY_COST = "top_consumers_by_cost";
    TOP_CONSUMERS_BY_ERRORS = "top_consumers_by_errors";
    TOP_CONSUMERS_BY_MEASURE = "top_consumers_by_measure";
    TOP_CONSUMERS_BY_TOKENS = "top_consumers_by_tokens";
    TOUCH_QUOTA_TENANT = "touch_quota_tenant";
    UNSEALED_AUDIT_BATCHES = "unsealed_audit_batches";
    UNSEALED_AUDIT_BATCHES_AMONG = "unsealed_audit_batches_among";
    USAGE = "usage";
    USAGE_BOOKS = "usage_books";
    USAGE_OF_EVENTS = "usage_of_events";
    USAGE_TENANTS = "usage_tenants";
}
