//! The mission's comprehensive pattern: a handler with a quota, the tracker and the audit trail.

use metertrail::audit::{ChatAudit, ErrorAudit};
use metertrail::quota::{Catalogue, Limit, Plan, Quota, QuotaEnforcer, WhenUnavailable, Window};
use metertrail::{Actual, EventType, Store, TokenUsage, UsageTracker};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_comprehensive_pattern_in_memory() {
    let bed = Bed::memory();
    let store: Arc<dyn Store> = bed.memory.clone().unwrap();
    the_comprehensive_pattern(bed, store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_comprehensive_pattern_on_postgres() {
    let bed = Bed::postgres().await;
    let store: Arc<dyn Store> = Arc::new(ledger::store(bed.database.as_ref().unwrap().url()));
    the_comprehensive_pattern(bed, store).await;
}

struct Service {
    quotas: QuotaEnforcer,
    tracker: UsageTracker,
    log: AuditLog,
}

impl Service {
    fn audit(&self, tenant: &TenantId, record: &impl metertrail::audit::AuditRecord) {
        self.log.record(self.log.event(tenant, ada(), record).unwrap());
    }

    /// Answers with a status code.
    async fn chat(&self, tenant: &TenantId, message: &str, provider: Result<&str, &str>) -> u16 {
        let operation = self.tracker.track(tenant, EventType::ChatMessage).session_id("s-1").unwrap();
        let decision = self.quotas.enforce(tenant, &Quota::Tokens, 150).await.unwrap();
        if let Some(exceeded) = ErrorAudit::quota_exceeded(&decision) {
            self.audit(tenant, &exceeded);
            operation.record_quota_exceeded();
            return 429;
        }
        let operation = operation.hold(decision.into_hold());
        let session = label("s-1");
        let characters = message.chars().count() as u64;
        let received = ChatAudit::MessageReceived { session: session.clone(), characters, attachments: 0 };
        self.audit(tenant, &received);
        let answer = match provider {
            Ok(answer) => answer,
            Err(error) => {
                let endpoint = "POST /api/chat".to_owned();
                let failed = ErrorAudit::ApiError { endpoint, status_code: 500, message: error.to_owned() };
                self.audit(tenant, &failed);
                operation.record_failure(error, Actual::new().status_code(500).unwrap());
                return 500;
            }
        };
        let tokens = ((message.len() + answer.len()) as u64).div_ceil(4);
        let characters = answer.chars().count() as u64;
        let sent = ChatAudit::ResponseSent { session, characters, tokens: Some(tokens), tool_calls: 0 };
        self.audit(tenant, &sent);
        let used = Actual::new().tokens(TokenUsage::estimated(0, tokens).unwrap()).status_code(200).unwrap();
        operation.record_success(used);
        200
    }
}

async fn the_comprehensive_pattern(bed: Bed, store: Arc<dyn Store>) {
    let limit = Limit::hard(Quota::Tokens, Window::Day, 200, WhenUnavailable::Deny).unwrap();
    let catalogue = Catalogue::new(Plan::new("free", [limit]).unwrap());
    let quotas =
        QuotaEnforcer::builder(Arc::clone(&store), catalogue).clock(bed.clock.clone()).start().unwrap();
    let tracker = UsageTracker::builder(store).clock(bed.clock.clone()).quotas(&quotas).start().unwrap();
    let service = Service { quotas, tracker, log: bed.log() };
    let acme = tenant("acme");
    let long = "x".repeat(200);
    let said = [
        service.chat(&acme, "hello", Err("upstream is gone")).await,
        service.chat(&acme, "hello", Ok(&long)).await,
        service.chat(&acme, "hello again", Ok(&long)).await,
    ];
    assert_eq!(said, [500, 200, 429], "52 of 200 are used: 150 more are too many");

    assert!(service.tracker.shutdown(MINUTE).await.unwrap().unwritten.is_empty());
    let today = service.tracker.usage_today(&acme).await.unwrap().metrics;
    assert_eq!((today.failures, today.successes, today.quota_exceeded), (1, 1, 1));
    assert_eq!((today.tokens_total(), today.tokens_estimated), (52, 52));
    let status = service.quotas.quota_status(&acme).await.unwrap();
    assert_eq!((status.limits[0].used, status.limits[0].held), (52, 0), "both holds are settled");

    assert!(service.log.shutdown(MINUTE).await.unwrap().unwritten.is_empty());
    let trail = service.log.tenant_audit_trail(&acme, 1).await.unwrap();
    let mut types: Vec<&str> = trail.iter().map(|event| event.event_type.as_str()).collect();
    types.sort_unstable();
    let (received, sent) = ("chat.message_received", "chat.response_sent");
    assert_eq!(types, [received, received, sent, "error.api_error", "error.quota_exceeded"]);
    let failed = service.log.failed_operations(&acme, 1).await.unwrap();
    assert_eq!(failed.len(), 2);
    assert!(!format!("{trail:?}").contains("hello"), "a text is in the trail");
    let report = bed.verified().await;
    assert!(report.is_clean(), "{report:?}");
}
