//! The registry of schemas: what was written once stays readable.

use metertrail::audit::{
    Actor, AdminAudit, AuditEvent, AuditField, AuditRecord, AuditSchema, ChatAudit, ConfigAudit, ErrorAudit,
    KbAudit, Mended, PrivacyAudit, SecurityAudit, Severity, TrialAudit, check_registry, record,
};

use super::{label, noon, tenant};

const REGISTRY: &str = include_str!("../../../docs/audit-schemas.txt");

#[test]
fn a_schema_that_changes_has_a_new_version() {
    if let Err(error) = check_registry(record::schemas(), REGISTRY) {
        let lines: Vec<String> = record::schemas().map(AuditSchema::to_line).collect();
        panic!("{error}\nthe schemas are now:\n{}", lines.join("\n"));
    }
}

#[test]
fn a_change_without_a_version_is_found() {
    const BEFORE: AuditSchema = AuditSchema::new("a.b", 1, "b", Severity::Info, &[AuditField::text("x")]);
    const AFTER: AuditSchema = AuditSchema::new("a.b", 1, "b", Severity::Info, &[AuditField::integer("x")]);
    const NEXT: AuditSchema = AuditSchema::new("a.b", 2, "b", Severity::Info, &[AuditField::integer("x")]);
    let registry = format!("# comment\n{}\n", BEFORE.to_line());
    check_registry([&BEFORE], &registry).unwrap();
    let changed = check_registry([&AFTER], &registry).unwrap_err().to_string();
    assert!(changed.contains("changed without a new version"), "{changed}");
    let unknown = check_registry([&NEXT], &registry).unwrap_err().to_string();
    assert!(unknown.contains("not registered yet"), "{unknown}");
    let registry = format!("{registry}{}\n", NEXT.to_line());
    check_registry([&NEXT], &registry).unwrap();
    let back = check_registry([&BEFORE], &registry).unwrap_err().to_string();
    assert!(back.contains("went back"), "{back}");
}

/// Every event of the crate, with and without what is optional.
#[test]
fn every_record_is_what_its_schema_says() {
    let text = || Some("because".to_owned());
    let records: Vec<Box<dyn AuditRecord>> = vec![
        Box::new(TrialAudit::Created { plan: "pro".into(), days: 14 }),
        Box::new(TrialAudit::Upgraded { from_plan: "trial".into(), to_plan: "pro".into() }),
        Box::new(TrialAudit::Extended { days: 7, reason: text() }),
        Box::new(TrialAudit::Expired { plan: "pro".into() }),
        Box::new(TrialAudit::Cancelled { reason: None }),
        Box::new(KbAudit::Uploaded { document: label("d"), bytes: 1, chunks: None }),
        Box::new(KbAudit::Crawled { url: "https://example.org".into(), pages: 3 }),
        Box::new(KbAudit::ManualAdded { document: label("d"), bytes: 1 }),
        Box::new(KbAudit::Deleted { document: label("d"), reason: text() }),
        Box::new(ConfigAudit::BrandingUpdated { changed: vec!["logo".into()] }),
        Box::new(ConfigAudit::ToolsAssigned { tools: vec!["search".into(), "mail".into()] }),
        Box::new(ConfigAudit::QuotaChanged {
            quota: "tokens".into(),
            window: "day".into(),
            from_amount: Some(1),
            from_source: Some("plan:free".into()),
            to_amount: None,
            to_source: Some("override".into()),
            expires_at: Some(noon()),
            reason: text(),
        }),
        Box::new(ConfigAudit::PlanChanged { from_plan: None, to_plan: Some("pro".into()), reason: text() }),
        Box::new(ConfigAudit::ZoneChanged { from_zone: None, to_zone: Some("UTC".into()), reason: None }),
        Box::new(ConfigAudit::PlanReplaced {
            plan: label("pro"),
            from_limits: None,
            to_limits: Some(vec!["tokens by day: 1, hard".into()]),
            is_in_force: true,
            reason: None,
        }),
        Box::new(ConfigAudit::DefaultPlanChanged {
            from_plan: label("free"),
            to_plan: label("trial"),
            reason: text(),
        }),
        Box::new(AdminAudit::requested(&KbAudit::Deleted { document: label("d"), reason: text() })),
        Box::new(AdminAudit::UsageReconciled {
            range: metertrail::TimeRange::ALL,
            mended: Some(Mended { periods: 1, drifts: vec!["{}".into()], drifts_total: 1, unverifiable: 0 }),
            reason: None,
        }),
        Box::new(ChatAudit::MessageReceived { session: label("s"), characters: 5, attachments: 0 }),
        Box::new(ChatAudit::ResponseSent {
            session: label("s"),
            characters: 5,
            tokens: Some(9),
            tool_calls: 1,
        }),
        Box::new(ErrorAudit::ApiError {
            endpoint: "POST /chat".into(),
            status_code: 500,
            message: "no".into(),
        }),
        Box::new(ErrorAudit::QuotaExceeded {
            quota: "tokens".into(),
            window: "day".into(),
            used: 10,
            held: 0,
            limit: 10,
            asked: 1,
        }),
        Box::new(SecurityAudit::AuthFailed { method: "password".into(), reason: "wrong".into() }),
        Box::new(SecurityAudit::Forbidden { resource: label("r"), permission: "write".into() }),
        Box::new(SecurityAudit::RateLimitAbuse { limit: "calls".into(), calls: 10_000 }),
        Box::new(SecurityAudit::KeyRotated { key: label("k") }),
        Box::new(PrivacyAudit::ErasureRequested { subject: label("p") }),
        Box::new(PrivacyAudit::SubjectErased { subject: label("p"), had_key: true }),
        Box::new(PrivacyAudit::HoldPlaced { subject: None, reason: "trial".into() }),
        Box::new(PrivacyAudit::HoldReleased { subject: Some(label("p")) }),
    ];
    let mut seen: Vec<&str> = Vec::new();
    for record in &records {
        let event =
            AuditEvent::new(tenant("acme"), noon(), Actor::user("u").unwrap(), record.as_ref()).unwrap();
        assert_eq!(event.event_type.as_str(), record.schema().event_type);
        seen.push(record.schema().event_type);
    }
    let known: Vec<&str> = record::schemas().map(|schema| schema.event_type).collect();
    assert!(known.iter().all(|known| seen.contains(known)), "{known:?}");
    assert_eq!(known.len(), seen.len());
}

#[test]
fn fields_that_are_not_in_the_schema_are_refused() {
    const SCHEMA: AuditSchema = AuditSchema::new("a.b", 1, "b", Severity::Info, &[AuditField::text("x")]);
    let fields = |value: serde_json::Value| value.as_object().unwrap().clone();
    SCHEMA.check(&fields(serde_json::json!({"x": "1"}))).unwrap();
    for bad in [serde_json::json!({}), serde_json::json!({"x": 1}), serde_json::json!({"x": "1", "y": 2})] {
        assert_eq!(SCHEMA.check(&fields(bad)).unwrap_err().field(), Some("metadata"));
    }
}
