//! What usage costs, from the outside; what is kept, on memory and on Postgres.

mod booking;
mod random;
mod recording;
mod responses;
mod streaming;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use metertrail::cost::PriceCatalogue;
use metertrail::store::CostStore;
use metertrail::testing::postgres::TestDatabase;
use metertrail::{MemoryStore, TenantId};
use rust_decimal::Decimal;

use crate::ledger;

const MINUTE: Duration = Duration::from_secs(60);

/// A store, and what it needs.
struct Bed {
    store: Arc<dyn CostStore>,
    _database: Option<TestDatabase>,
}

impl Bed {
    fn memory() -> Self {
        Self { store: Arc::new(MemoryStore::new()), _database: None }
    }

    async fn postgres() -> Self {
        let database = ledger::database().await;
        Self { store: Arc::new(ledger::store(database.url())), _database: Some(database) }
    }
}

fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn noon() -> DateTime<Utc> {
    "2026-03-01T12:00:30Z".parse().unwrap()
}

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

/// A small file of the form of genai-prices: a provider with a price that changed, one by the time of day, one by size.
const PRICES: &str = r#"[
{"id": "openai", "model_match": {"starts_with": "gpt-"}, "provider_match": {"contains": "openai"},
 "extractors": [{"api_flavor": "chat", "root": "usage", "model_path": "model", "mappings": [
    {"path": "prompt_tokens", "dest": "input_tokens", "required": true},
    {"path": ["prompt_tokens_details", "cached_tokens"], "dest": "cache_read_tokens", "required": false},
    {"path": ["completion_tokens_details", "reasoning_tokens"], "dest": "output_reasoning_tokens", "required": false},
    {"path": "completion_tokens", "dest": "output_tokens", "required": true}]}],
 "models": [
    {"id": "gpt-a", "match": {"or": [{"equals": "gpt-a"}, {"regex": "^gpt-a-\\d{8}$"}]},
     "prices": [{"prices": {"input_mtok": 4, "cache_read_mtok": 1.1, "output_mtok": 12}},
                {"constraint": {"start_date": "2026-03-01"}, "prices": {"input_mtok": 2.2, "cache_read_mtok": 0.55, "output_mtok": 6.6}}],
     "price_variants": [{"when": {"service_tier": "flex"}, "prices": {"input_mtok": 1.1}}]},
    {"id": "gpt-long", "match": {"equals": "gpt-long"},
     "prices": {"input_mtok": {"base": 1, "tiers": [{"start": 200000, "price": 2}]},
                "output_mtok": {"base": 5, "tiers": [{"start": 200000, "price": 7.5}]}}},
    {"id": "gpt-night", "match": {"equals": "gpt-night"},
     "prices": [{"prices": {"input_mtok": 2}},
                {"constraint": {"start_time": "16:30:00Z", "end_time": "00:30:00Z"}, "prices": {"input_mtok": 1}}]},
    {"id": "gpt-exact", "match": {"equals": "gpt-exact"}, "prices": {"input_mtok": 0.1234567890123, "requests_kcount": 5}}]},
{"id": "azure", "fallback_model_providers": ["openai"], "models": []}
]"#;

fn catalogue() -> PriceCatalogue {
    PriceCatalogue::from_json(PRICES.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract_of_cost_stores() {
    metertrail::testing::conformance::cost::all(async || MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_contract_of_cost_stores() {
    let mut databases = Vec::new();
    metertrail::testing::conformance::cost::all(async || {
        databases.push(ledger::database().await);
        ledger::store(databases.last().unwrap().url())
    })
    .await;
}
