//! All integration tests, in one binary: one throw-away Postgres for all of them.
#![cfg(all(feature = "postgres", feature = "test-util"))]
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    missing_docs
)]

mod alert;
mod audit;
mod conformance;
#[cfg(feature = "genai-prices")]
mod cost;
mod crash;
mod examples;
mod harness;
mod input;
mod ledger;
mod model;
mod postgres;
mod proxy;
mod quota;
mod reconcile;
mod sketch;
mod tidy;
mod time;
mod tracker;
mod upkeep;
