//! Many at once against one limit.

use std::process::{Command, Stdio};

use metertrail::TokenUsage;
use metertrail::quota::Decision;
use tokio::task::JoinSet;

use super::*;

on_both_stores! {
    eight_enforcers_never_pass_a_limit_and_sell_the_last_unit,
    eight_enforcers_without_slices_likewise,
    units_given_back_at_shutdown_are_sold_by_others,
    idle_units_come_back,
    without_slices_nothing_is_kept,
}

const ENFORCERS: u64 = 8;
const TASKS: u64 = 4;

async fn eight_enforcers_never_pass_a_limit_and_sell_the_last_unit(bed: Bed) {
    contend(&bed, false, 20_000).await;
}

async fn eight_enforcers_without_slices_likewise(bed: Bed) {
    contend(&bed, true, 4_000).await;
}

/// Tokens are short, calls and messages are not: all three at once.
async fn contend(bed: &Bed, direct: bool, limit: u64) {
    let started = std::time::Instant::now();
    let limits = || {
        let others = [hard(Quota::ApiCalls, limit), hard(Quota::ChatMessages, limit)];
        catalogue([hard(Quota::Tokens, limit)].into_iter().chain(others))
    };
    let mut tasks = JoinSet::new();
    let mut all = Vec::new();
    for enforcer in 0..ENFORCERS {
        let store = bed.other_store();
        let builder =
            QuotaEnforcer::builder(Arc::clone(&store), limits()).clock(bed.clock.clone()).tick(None);
        let quotas = if direct { builder.direct() } else { builder }.start().unwrap();
        let tracker = UsageTracker::builder(store).clock(bed.clock.clone()).quotas(&quotas).start().unwrap();
        for task in 0..TASKS {
            let dice = crate::ledger::Dice::new(enforcer * TASKS + task);
            tasks.spawn(spend(quotas.clone(), tracker.clone(), bed.clock.clone(), dice));
        }
        all.push((quotas, tracker));
    }
    let (mut tokens, mut calls) = (0, 0);
    while let Some(spent) = tasks.join_next().await {
        let (more, operations) = spent.unwrap();
        (tokens, calls) = (tokens + more, calls + operations);
    }
    assert!(tokens <= limit, "{tokens} tokens were admitted of {limit}");
    let mut round_trips = 0;
    for (quotas, tracker) in all {
        let report = tracker.shutdown(Duration::from_secs(30)).await.unwrap();
        assert!(report.unwritten.is_empty() && report.rejected.is_empty(), "{report:?}");
        round_trips += quotas.round_trips();
        quotas.shutdown(Duration::from_secs(30)).await.unwrap();
    }
    println!("{tokens} of {limit} tokens, {calls} operations, {round_trips} trips, {:?}", started.elapsed());
    let last = bed.quotas(limits());
    let seen = view(&last, &Quota::Tokens).await;
    assert_eq!((seen.used, seen.held, seen.elsewhere), (tokens, 0, 0), "{seen:?}");
    assert_eq!(view(&last, &Quota::ApiCalls).await.used, calls);
    assert_eq!(view(&last, &Quota::ChatMessages).await.used, calls);
    if tokens < limit {
        assert!(admits(&last, limit - tokens).await, "the last units cannot be sold");
    }
    assert!(!admits(&last, limit - tokens + 1).await);
}

/// Spends until a single token is refused again and again.
async fn spend(
    quotas: QuotaEnforcer,
    tracker: UsageTracker,
    clock: ManualClock,
    mut dice: crate::ledger::Dice,
) -> (u64, u64) {
    let (mut tokens, mut calls, mut refused) = (0, 0, 0);
    let mut amount = 1 + dice.below(500);
    while refused < 5 {
        let amounts = [(Quota::Tokens, amount), (Quota::ApiCalls, 1), (Quota::ChatMessages, 1)];
        let decision: Decision = quotas.enforce_multiple(&acme(), &amounts).await.unwrap();
        if decision.is_allowed() {
            // A third uses less than it asked for.
            let used = if dice.below(3) == 0 { amount.div_ceil(2) } else { amount };
            let operation = tracker.track(&acme(), EventType::ChatMessage).hold(decision.into_hold());
            drop(operation.record_success(TokenUsage::total_only(used).unwrap()));
            (tokens, calls) = (tokens + used, calls + 1);
            amount = 1 + dice.below(500);
        } else {
            refused += u32::from(amount == 1);
            amount = (amount / 2).max(1);
            clock.advance(Duration::from_millis(1));
        }
        tokio::task::yield_now().await;
    }
    (tokens, calls)
}

async fn units_given_back_at_shutdown_are_sold_by_others(bed: Bed) {
    for turn in 0..5 {
        let quotas = bed.quotas(tokens(1_000));
        drop(hold(&quotas, 100 * (turn + 1)).await.unwrap());
        drop(hold(&quotas, 900).await.unwrap());
        let other = bed.quotas(tokens(1_000));
        assert!(!admits(&other, 1_000).await, "turn {turn}: they are leased");
        quotas.shutdown(Duration::from_secs(10)).await.unwrap();
        bed.clock.advance(Duration::from_secs(1));
        assert!(admits(&other, 1_000).await, "turn {turn}");
        other.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}

async fn idle_units_come_back(bed: Bed) {
    let (idle, other) = (bed.quotas(tokens(1_000)), bed.quotas(tokens(1_000)));
    drop(hold(&idle, 1_000).await.unwrap());
    assert!(!admits(&other, 1).await);
    bed.clock.advance(Duration::from_secs(11));
    drop(admitted_soon(&bed, &other, 1_000).await);
}

async fn without_slices_nothing_is_kept(bed: Bed) {
    let direct = bed.builder(tokens(1_000)).direct().start().unwrap();
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(hold(&direct, 7).await.unwrap());
    }
    let other = bed.quotas(tokens(1_000));
    assert!(!admits(&other, 931).await && admits(&other, 930).await);
}

#[test]
fn contend_keeps_its_promises_without_and_with_kills() {
    let example = build_contend();
    for kill in [0_u64, 2, 2] {
        let mut command = Command::new(&example);
        command.args(["--limit", "20000", "--processes", "4", "--json", "--kill", &kill.to_string()]);
        command.env_remove("DATABASE_URL").stdin(Stdio::null());
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("stdout is one JSON object: {output:?}"));
        println!("{report}");
        assert!(output.status.success(), "{report}: {error}");
        let number = |field: &str| report[field].as_u64().unwrap_or_else(|| panic!("{field}: {report}"));
        assert_eq!((number("limit"), number("processes")), (20_000, 4));
        assert!(number("admitted") + number("forfeited") <= 20_000, "{report}");
        assert!(number("recorded") <= 20_000 && number("forfeited") <= number("forfeited_max"), "{report}");
        assert!(number("refused") > 0 && number("operations") > 0, "{report}");
        assert!(report["seconds"].is_number());
        if kill == 0 {
            assert_eq!((number("stranded"), number("forfeited"), number("killed")), (0, 0, 0), "{report}");
            assert_eq!((number("admitted"), number("recorded")), (20_000, 20_000), "{report}");
            assert!(number("round_trips") > 0);
        } else {
            assert!(number("killed") > 0, "nobody was killed: {report}");
        }
    }
}

/// As the examples of `examples.rs` are built: beside this binary, with its profile.
fn build_contend() -> std::path::PathBuf {
    let own = std::env::current_exe().unwrap();
    let profile_dir = own.ancestors().nth(2).unwrap();
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()).unwrap() {
        "debug" => "dev",
        profile => profile,
    };
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["build", "--locked", "--all-features", "--profile", profile, "--target-dir"]);
    command.arg(profile_dir.parent().unwrap()).args(["--example", "contend"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    profile_dir.join("examples").join(format!("contend{}", std::env::consts::EXE_SUFFIX))
}
