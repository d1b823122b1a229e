//! The examples as black boxes: what they print, and with which status they end.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use metertrail::testing::conformance::CASES;
use metertrail::testing::postgres::{TestDatabase, TestPostgres};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::NoTls;

const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";
/// Five requests of two hours: 1,870 and 262 tokens.
const ROWS: &str = "\
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:59:59.9999999,1000,9
2023-11-16 19:00:00.0000000,0,0
2023-11-16 19:00:00,100,100
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_verify_finds_every_hand() {
    let database = TestPostgres::shared().unwrap().create_database(None).await.unwrap();
    let mut command = Command::new(example("audit_verify"));
    let output = run(command.arg("--database-url").arg(database.url()));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "an untouched trail: 41 events, 0 findings",
        "an export, offline: 41 events, 0 findings",
        "    log_truncated: 0 epochs, 2 were anchored",
        "after a lawful erasure: 41 events, 0 findings",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn quickstart_prints_the_dashboard_of_a_tenant() {
    let output = run(&mut Command::new(example("quickstart")));
    assert!(output.status.success(), "{output:?}");
    let dashboard: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    assert_eq!(keys(&dashboard), ["period", "quota", "recentEvents", "tenantId", "usage"]);
    assert_eq!(dashboard["tenantId"], "acme-corp");
    assert_eq!(dashboard["period"], "daily");
    let quota = &dashboard["quota"];
    assert_eq!((&quota["plan"], &quota["anyExceeded"]), (&json!("free"), &json!(false)));
    assert_eq!(keys(&quota["quotas"]), ["api_calls", "tokens"]);
    let tokens = json!({"limit": 2_000, "used": 1_618, "remaining": 382, "percentage": 80.9});
    // It may have run at midnight.
    if dashboard["usage"].as_array().unwrap().len() == 1 {
        assert_eq!(quota["quotas"]["tokens"], tokens);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("refused: ") && said.contains("2000 tokens by day"), "{said}");

    // Two days if it ran at midnight.
    let days = dashboard["usage"].as_array().unwrap();
    assert!(matches!(days.len(), 1 | 2), "{days:?}");
    let sum = |field: &str| days.iter().map(|day| day[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("api_calls_total"), 5);
    assert_eq!(sum("chat_messages_sent"), 1, "a refused and a failed one were not sent");
    assert_eq!(sum("embeddings_generated"), 1);
    assert_eq!(sum("total_tokens_used"), 1_618);
    for day in days {
        assert_eq!(
            keys(day),
            [
                "api_calls_total",
                "api_latency_p95_ms",
                "chat_messages_sent",
                "embeddings_generated",
                "error_rate",
                "estimated_cost_usd",
                "period_start",
                "total_tokens_used"
            ]
        );
        assert!(day["period_start"].as_str().unwrap().ends_with("T00:00:00Z"), "{day}");
    }
    if let [day] = &days[..] {
        assert_eq!((&day["estimated_cost_usd"], &day["error_rate"]), (&json!(0.0021), &json!(33.33)));
    }

    let events = dashboard["recentEvents"].as_array().unwrap();
    let mut results = events.iter().map(|event| event["result"].as_str().unwrap()).collect::<Vec<_>>();
    results.sort_unstable();
    assert_eq!(results, ["failure", "quota_exceeded", "rate_limited", "success", "success"]);
    for event in events {
        assert_eq!(keys(event), ["action", "event_type", "result", "timestamp"]);
    }
}

/// Each of its cases is a task, so one that never gives way would never end.
#[tokio::test]
async fn custom_store_passes_every_case() {
    let mut command = tokio::process::Command::new(example("custom_store"));
    let ran = tokio::time::timeout(Duration::from_secs(120), command.kill_on_drop(true).output()).await;
    let output = ran.expect("it ends").unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let all = CASES.len();
    assert!(text.ends_with(&format!("{all} of {all} cases passed\n")), "{text}");
}

#[test]
fn replay_counts_to_the_unit_in_memory() {
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let summary = summary(&trace.replay(&[]));
    assert_small(&summary);
    assert_eq!(summary["store"]["tenants"], 1);
}

#[tokio::test]
async fn replay_counts_to_the_unit_on_postgres() {
    let database = database().await;
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let summary = summary(&trace.replay(&["--store", "postgres", "--database-url", database.url()]));
    assert_small(&summary);
    // The tables themselves, for anybody with psql.
    let question = "SELECT count(*), sum(tokens_used)::bigint, min(event_type), min(outcome), \
        to_char(min(timestamp) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') FROM tenant_usage_realtime";
    let row = ask(&database, question).await;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (5, 2_132));
    assert_eq!((row.get::<_, &str>(2), row.get::<_, &str>(3)), ("chat_message", "success"));
    assert_eq!(row.get::<_, &str>(4), "2023-11-16 18:15:46.680590");
}

#[tokio::test]
async fn replay_takes_the_database_of_the_environment() {
    let database = database().await;
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let mut command = trace.command(&["--store", "postgres", "--json"]);
    assert_small(&summary(&run(command.env("DATABASE_URL", database.url()))));
    assert_eq!(ask(&database, "SELECT count(*) FROM tenant_usage_realtime").await.get::<_, i64>(0), 5);
}

#[test]
fn replay_starts_a_postgres_if_none_is_named() {
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let output = trace.replay(&["--store", "postgres"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("throw-away Postgres"), "{error}");
    // A machine that tests on a server elsewhere may have no Postgres of its own.
    if output.status.success() || TestPostgres::shared().unwrap().bin_dir().is_some() {
        assert_small(&summary(&output));
    } else {
        assert!(error.contains("no Postgres to test with"), "{error}");
    }
}

#[test]
fn replay_goes_round_the_tenants() {
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let summary = summary(&trace.replay(&["--run", "r", "--tenants", "3", "--limit", "none"]));
    assert_small(&summary);
    assert_eq!(summary["store"]["tenants"], 3);
    let top = json!([
        {"tenant_id": "r-2", "tokens": 1_009},
        {"tenant_id": "r-1", "tokens": 705},
        {"tenant_id": "r-0", "tokens": 418},
    ]);
    assert_eq!(summary["store"]["top_consumers"], top);
}

#[tokio::test]
async fn replay_refuses_who_has_used_its_share_and_says_why() {
    let database = database().await;
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let postgres = ["--store", "postgres", "--database-url", database.url()];
    for store in [&[][..], &postgres[..]] {
        // Each of the three may use a third of 2,132 tokens: 711. The first has 418, the second 505 + 200, the third 1,009.
        let arguments = [&["--run", "r", "--tenants", "3"], store].concat();
        let shared = summary(&trace.replay(&arguments));
        assert_eq!(
            (&shared["events"], &shared["allowed"], &shared["refused"]),
            (&json!(5), &json!(4), &json!(1))
        );
        let stored = &shared["store"];
        assert_eq!((&stored["events"], &stored["quota_exceeded"]), (&json!(4), &json!(1)));
        let tokens = stored["input_tokens"].as_u64().unwrap() + stored["output_tokens"].as_u64().unwrap();
        assert_eq!(tokens, 2_132 - 1_009);
        let refusal = &shared["refusals"][0];
        assert_eq!(shared["refusals"].as_array().unwrap().len(), 1);
        assert_eq!((&refusal["tenant_id"], &refusal["count"]), (&json!("r-2"), &json!(1)));
        assert_eq!((&refusal["quota"], &refusal["window"]), (&json!("tokens"), &json!("lifetime")));
        assert_eq!((&refusal["limit"], &refusal["first_line"]), (&json!(711), &json!(4)));
        assert!(refusal["reason"].as_str().unwrap().contains("more than the whole limit"), "{refusal}");
        // A limit of its own.
        let arguments = [&["--run", "s", "--limit", "700"], store].concat();
        let alone = summary(&trace.replay(&arguments));
        assert_eq!((&alone["allowed"], &alone["refused"]), (&json!(3), &json!(2)));
    }
    // What is used is used: under its limits a run cannot be told twice.
    let again = [&["--run", "r", "--tenants", "3"], &postgres[..]].concat();
    assert_fails(&trace.replay(&again), &["r-0 has used 418 tokens", "--limit none"]);
}

#[test]
fn replay_has_no_tenant_without_rows() {
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let summary = summary(&trace.replay(&["--tenants", "4000000000", "--limit", "none"]));
    assert_small(&summary);
    assert_eq!(summary["store"]["tenants"], 5);
}

#[tokio::test]
async fn replay_of_one_run_twice_counts_once() {
    let database = database().await;
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let arguments = [
        "--store",
        "postgres",
        "--database-url",
        database.url(),
        "--run",
        "monday",
        "--tenants",
        "2",
        "--limit",
        "none",
    ];
    for duplicates in [0, 5] {
        let summary = summary(&trace.replay(&arguments));
        assert_small(&summary);
        assert_eq!((&summary["run"], &summary["duplicates"]), (&json!("monday"), &json!(duplicates)));
        assert_eq!(summary["store"]["summary"], json!({"tenants": 2, "events": 5, "tokens": 2_132}));
    }
    assert_eq!(ask(&database, "SELECT count(*) FROM tenant_usage_realtime").await.get::<_, i64>(0), 5);
}

#[tokio::test]
async fn replay_without_a_run_counts_anew() {
    let database = database().await;
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    for times in [1, 2] {
        let summary = summary(&trace.replay(&["--store", "postgres", "--database-url", database.url()]));
        assert_small(&summary);
        assert_eq!(summary["duplicates"], 0);
        let all = json!({"tenants": times, "events": 5 * times, "tokens": 2_132 * times});
        assert_eq!(summary["store"]["summary"], all);
    }
}

#[tokio::test]
async fn replay_of_another_file_under_one_run_is_refused() {
    let database = database().await;
    let arguments = ["--store", "postgres", "--database-url", database.url(), "--run", "monday"];
    assert_small(&summary(&trace(&format!("{HEADER}\n{ROWS}")).replay(&arguments)));
    let other = trace(&format!("{HEADER}\n{}", ROWS.replace(",396,", ",397,")));
    assert_fails(&other.replay(&arguments), &["trace.csv:3", "another payload"]);
    // A shorter file has no conflict, and yet the store knows more of this run.
    let shorter = trace(&format!("{HEADER}\n{}\n", ROWS.lines().next().unwrap()));
    assert_fails(&shorter.replay(&arguments), &["the store disagrees", "2023-11-16 18:00:00"]);
    assert_eq!(ask(&database, "SELECT count(*) FROM tenant_usage_realtime").await.get::<_, i64>(0), 5);
}

#[tokio::test]
async fn replay_names_a_model() {
    let database = database().await;
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let arguments = ["--store", "postgres", "--database-url", database.url(), "--model", "llama-2-70b"];
    assert_small(&summary(&trace.replay(&arguments)));
    let models = "SELECT string_agg(DISTINCT model, ',') FROM tenant_usage_realtime";
    assert_eq!(ask(&database, models).await.get::<_, &str>(0), "llama-2-70b");
}

/// 1,870 and 262 tokens at 2.50 and 10 dollars a million.
#[tokio::test]
async fn replay_of_a_model_costs_what_a_hand_computes() {
    let database = database().await;
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let by_hand = "0.007295";
    for store in [&["--store", "memory"][..], &["--store", "postgres", "--database-url", database.url()]] {
        for tenants in ["1", "3"] {
            let arguments =
                [&["--model", "gpt-4o", "--limit", "none", "--tenants", tenants][..], store].concat();
            let summary = summary(&trace.replay(&arguments));
            for part in [&summary, &summary["store"]] {
                assert_eq!(part["cost_usd"], by_hand, "{summary}");
            }
            assert_eq!(summary["store"]["unpriced"], 0);
        }
    }
    let prices = trace.dir.path().join("prices.json");
    let text = r#"[{"id": "p", "model_match": {"equals": "m"}, "models": [{"id": "m", "match": {"equals": "m"},
        "prices": [{"prices": {"input_mtok": 0.3, "output_mtok": 0.7}},
                   {"constraint": {"start_date": "2023-11-17"}, "prices": {"input_mtok": 9, "output_mtok": 9}}]}]}]"#;
    fs::write(&prices, text).unwrap();
    // 1,870 × 0.3 and 262 × 0.7 millionths: the prices of the day of the trace.
    let summary = summary(&trace.replay(&["--model", "m", "--prices", prices.to_str().unwrap()]));
    assert_eq!(summary["cost_usd"], "0.0007444", "{summary}");
}

#[test]
fn price_usages_prints_a_line_for_each_case_and_shape() {
    let dir = TempDir::new().unwrap();
    let (cases, prices) = (dir.path().join("cases.json"), dir.path().join("prices.json"));
    let text = r#"[{"id": "p", "models": [{"id": "m", "match": {"equals": "m"},
        "prices": [{"prices": {"input_mtok": 1, "output_mtok": 3}},
                   {"constraint": {"start_date": "2026-08-22"}, "prices": {"input_mtok": 0.1, "output_mtok": 0.3}}]}],
        "extractors": [{"api_flavor": "chat", "root": "usage", "mappings": [
            {"path": "in", "dest": "input_tokens", "required": true},
            {"path": "out", "dest": "output_tokens", "required": true}]}]}]"#;
    fs::write(&prices, text).unwrap();
    let shape = json!([{"usage": {}, "extractors": [{"provider_id": "p", "api_flavor": "chat"}]}]);
    let body =
        |model: &str, usage: Value| json!({"body": {"model": model, "usage": usage}, "extracted": shape});
    let all = json!([body("m", json!({"in": 1_234, "out": 7})), body("other", json!({"in": 1, "out": 0})),
        body("m", json!({"in": "1", "out": 0})), {"body": {"model": "m", "usage": {"in": 1, "out": 1}}}]);
    fs::write(&cases, all.to_string()).unwrap();
    let lines = |at: &str| -> Vec<Value> {
        let mut command = Command::new(example("price_usages"));
        let output = run(command.arg(&cases).arg("--prices").arg(&prices).args(["--at", at]));
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let printed = lines("2026-08-21");
    assert_eq!(printed.len(), 4);
    let first = &printed[0];
    assert_eq!(
        (&first["case"], &first["provider_id"], &first["api_flavor"]),
        (&json!(0), &json!("p"), &json!("chat"))
    );
    assert_eq!(first["usage"], json!({"input_tokens": 1_234, "output_tokens": 7}));
    assert_eq!((&first["input_price"], &first["output_price"]), (&json!("0.001234"), &json!("0.000021")));
    assert_eq!(first["error"], Value::Null);
    assert_eq!(
        (&printed[1]["input_price"], &printed[1]["error"]),
        (&Value::Null, &json!("the provider has no such model"))
    );
    assert_eq!(printed[1]["usage"], json!({"input_tokens": 1}));
    assert_eq!(printed[2]["error"], "response.usage.in: must be a number, is a text");
    assert_eq!(printed[3]["total_price"], "0.000004");
    assert_eq!(lines("2026-08-22T00:00:00Z")[0]["input_price"], "0.0001234");
    let missing = run(Command::new(example("price_usages")).arg(dir.path().join("none.json")));
    assert_fails(&missing, &["none.json"]);
}

#[test]
fn replay_takes_a_byte_order_mark_and_carriage_returns() {
    let text = format!("\u{feff}{HEADER}\n{}", ROWS.trim_end()).replace('\n', "\r\n");
    assert_small(&summary(&trace(&text).replay(&[])));
}

#[test]
fn replay_of_a_header_alone_is_nothing() {
    let summary = summary(&trace(&format!("{HEADER}\n")).replay(&["--tenants", "3"]));
    assert_eq!((&summary["events"], &summary["store"]["events"]), (&json!(0), &json!(0)));
}

#[test]
fn replay_names_the_line_and_the_fault_of_a_malformed_row() {
    let at = "2023-11-16 18:15:46.6805900";
    for (row, faults) in [
        (format!("{at},374"), ["GeneratedTokens", "missing"]),
        (at.to_owned(), ["ContextTokens", "missing"]),
        (String::new(), ["ContextTokens", "missing"]),
        (format!("{at},374,44,1"), ["3 columns", "has 4"]),
        (format!("{at},-374,44"), ["ContextTokens", "\"-374\""]),
        (format!("{at},374,4.5"), ["GeneratedTokens", "\"4.5\""]),
        (format!("{at},374,"), ["GeneratedTokens", "\"\""]),
        (format!("{at},many,44"), ["ContextTokens", "\"many\""]),
        (format!("{at},99999999999999999999,44"), ["ContextTokens", "\"99999999999999999999\""]),
        (format!("{at},10000000000,1"), ["tokens", "10000000000"]),
        ("2023-13-16 18:15:46,374,44".to_owned(), ["TIMESTAMP", "2023-13-16"]),
        ("yesterday,374,44".to_owned(), ["TIMESTAMP", "yesterday"]),
        ("1999-12-31 23:59:59,374,44".to_owned(), ["TIMESTAMP", "2000-01-01"]),
    ] {
        let text = format!("{HEADER}\n{ROWS}{row}\n{at},1,1\n");
        for line_end in ["\n", "\r\n"] {
            // Nobody listens there: the file is read to its end before anything is recorded.
            let trace = trace(&text.replace('\n', line_end));
            let url = nowhere(&trace.dir);
            let output = trace.replay(&["--store", "postgres", "--database-url", &url]);
            assert_fails(&output, &["trace.csv:7", faults[0], faults[1]]);
        }
    }
    let output = trace_of(b"TIMESTAMP,ContextTokens,GeneratedTokens\n\xff,1,1\n").replay(&[]);
    assert_fails(&output, &["trace.csv:2", "UTF-8"]);
}

#[test]
fn replay_refuses_another_header() {
    for text in [
        String::new(),
        ROWS.to_owned(),
        format!("TIMESTAMP,ContextTokens\n{ROWS}"),
        format!("timestamp,input,output\n{ROWS}"),
    ] {
        assert_fails(&trace(&text).replay(&[]), &["trace.csv:1", HEADER]);
    }
}

#[test]
fn replay_refuses_a_file_that_is_not_there() {
    let output = run(Command::new(example("replay")).arg("no such trace.csv"));
    assert_fails(&output, &["no such trace.csv"]);
}

#[test]
fn replay_refuses_arguments_that_make_no_sense() {
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    assert_fails(&trace.replay(&["--store", "redis"]), &["redis", "memory", "postgres"]);
    assert_fails(&trace.replay(&["--tenants", "0"]), &["--tenants"]);
    assert_fails(&trace.replay(&["--database-url", "postgres://localhost/x"]), &["--store postgres"]);
    assert_fails(&trace.replay(&["--run", " "]), &["tenant_id"]);
    assert_fails(&trace.replay(&["--model", ""]), &["model"]);
    assert_fails(&trace.replay(&["--store", "postgres", "--database-url", "nonsense"]), &["Postgres URL"]);
}

#[test]
fn replay_says_that_the_database_cannot_be_reached() {
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let url = nowhere(&trace.dir);
    assert_fails(&trace.replay(&["--store", "postgres", "--database-url", &url]), &["error: ", "connect"]);
}

#[test]
fn replay_tells_people_the_same() {
    let trace = trace(&format!("{HEADER}\n{ROWS}"));
    let output = run(&mut trace.command(&["--run", "r"]));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["5 events", "1870 input", "262 output", "cost      unknown", "the same, hour by hour", "r-0"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
#[ignore = "needs METERTRAIL_DATA_DIR"]
async fn replay_of_the_azure_trace_counts_to_the_unit() {
    let dir =
        env::var_os("METERTRAIL_DATA_DIR").expect("METERTRAIL_DATA_DIR must name the folder of the data");
    let csv = PathBuf::from(dir).join("azure_llm_trace_conv_2023.csv");
    assert!(csv.is_file(), "METERTRAIL_DATA_DIR has no {}", csv.display());
    let database = database().await;
    for store in [&["--store", "memory"][..], &["--store", "postgres", "--database-url", database.url()]] {
        for tenants in ["1", "7"] {
            let mut command = Command::new(example("replay"));
            let arguments = ["--json", "--tenants", tenants, "--limit", "none"];
            let summary = summary(&run(command.arg(&csv).args(arguments).args(store)));
            for part in [&summary, &summary["store"]] {
                assert_eq!(part["events"], 19_366, "{summary}");
                assert_eq!(part["input_tokens"], 22_361_870, "{summary}");
                assert_eq!(part["output_tokens"], 4_088_665, "{summary}");
            }
            assert_eq!(summary["allowed"], 19_366, "{summary}");
            assert_eq!(summary["store"]["tenants"].to_string(), tenants);
        }
        // Fifty tenants with a share each: those who have more are refused, and what is stored is what was admitted.
        let mut command = Command::new(example("replay"));
        let shared = summary(&run(command.arg(&csv).args(["--json", "--tenants", "50"]).args(store)));
        let (allowed, refused) = (shared["allowed"].as_u64().unwrap(), shared["refused"].as_u64().unwrap());
        assert_eq!(allowed + refused, 19_366);
        assert!((100..1_000).contains(&refused), "{refused} are refused");
        let stored = &shared["store"];
        assert_eq!((&stored["events"], &stored["quota_exceeded"]), (&json!(allowed), &json!(refused)));
        let share = 26_450_535_u64.div_ceil(50);
        let told = shared["refusals"].as_array().unwrap();
        assert_eq!(told.iter().map(|refusal| refusal["count"].as_u64().unwrap()).sum::<u64>(), refused);
        for refusal in told {
            assert_eq!((&refusal["quota"], &refusal["limit"]), (&json!("tokens"), &json!(share)));
        }
        // A database has the tenants of the other runs, too.
        let run = shared["run"].as_str().unwrap();
        let own = |top: &&Value| top["tenant_id"].as_str().unwrap().starts_with(run);
        for top in stored["top_consumers"].as_array().unwrap().iter().filter(own) {
            assert!(top["tokens"].as_u64().unwrap() <= share, "{top} is over {share}");
        }
    }
}

/// What every replay of [`ROWS`] says, whatever the store and the tenants.
fn assert_small(summary: &Value) {
    for part in [summary, &summary["store"]] {
        assert_eq!(part["events"], 5, "{summary}");
        assert_eq!(part["input_tokens"], 1_870, "{summary}");
        assert_eq!(part["output_tokens"], 262, "{summary}");
    }
    assert_eq!((&summary["allowed"], &summary["refused"]), (&json!(5), &json!(0)));
    assert_eq!((&summary["cost_usd"], &summary["store"]["unpriced"]), (&Value::Null, &json!(4)));
    assert!(summary["seconds"].as_f64().unwrap() > 0.0);
    assert!(summary["events_per_second"].as_u64().unwrap() > 0);
    let hours = json!([
        {"start": "2023-11-16T18:00:00Z", "events": 3, "input_tokens": 1_770, "output_tokens": 162},
        {"start": "2023-11-16T19:00:00Z", "events": 2, "input_tokens": 100, "output_tokens": 100},
    ]);
    assert_eq!(summary["store"]["hours"], hours);
}

/// A failure that says all of this on stderr and nothing on stdout.
fn assert_fails(output: &Output, parts: &[&str]) {
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(parts.iter().all(|part| error.contains(part)), "{parts:?}: {error}");
    assert!(!error.contains("panicked"), "{error}");
}

/// A file of its own in a folder that vanishes with it.
struct TraceFile {
    dir: TempDir,
}

impl TraceFile {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(example("replay"));
        command.arg(self.dir.path().join("trace.csv")).args(arguments).env_remove("DATABASE_URL");
        command
    }

    fn replay(&self, arguments: &[&str]) -> Output {
        run(self.command(arguments).arg("--json"))
    }
}

fn trace(text: &str) -> TraceFile {
    trace_of(text.as_bytes())
}

fn trace_of(bytes: &[u8]) -> TraceFile {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("trace.csv"), bytes).unwrap();
    TraceFile { dir }
}

fn summary(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON object")
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?} does not run: {error}"))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// A socket that is not there.
fn nowhere(dir: &TempDir) -> String {
    format!("postgres://nobody@/nothing?host={}", dir.path().display())
}

async fn database() -> TestDatabase {
    TestPostgres::shared().unwrap().create_database(None).await.unwrap()
}

async fn ask(database: &TestDatabase, question: &str) -> tokio_postgres::Row {
    let (client, connection) = tokio_postgres::connect(database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one(question, &[]).await.unwrap()
}

/// The executable of an example. `cargo test --test it` does not build them, and one that lies there may be old: the
/// first caller builds them, which takes a moment if they are fresh.
fn example(name: &str) -> PathBuf {
    static EXAMPLES: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLES.get_or_init(build_examples).join(format!("{name}{}", env::consts::EXE_SUFFIX))
}

fn build_examples() -> PathBuf {
    // target/debug/deps/it-0123456789abcdef
    let own = env::current_exe().unwrap();
    let profile_dir = own.ancestors().nth(2).unwrap();
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()).unwrap() {
        "debug" => "dev",
        profile => profile,
    };
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    command.args(["build", "--locked", "--all-features", "--profile", profile, "--target-dir"]);
    command.arg(profile_dir.parent().unwrap());
    command.args(
        ["quickstart", "price_usages", "replay", "custom_store"].iter().flat_map(|name| ["--example", *name]),
    );
    let output = run(&mut command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    profile_dir.join("examples")
}
