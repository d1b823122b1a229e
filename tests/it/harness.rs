//! The throw-away Postgres: what the tests of the Postgres store rely on.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use metertrail::ErrorKind;
use metertrail::testing::postgres::{TestDatabase, TestPostgres, TestPostgresOptions};
use tokio_postgres::{Client, NoTls};

const VICTIM: &str = "METERTRAIL_HARNESS_VICTIM";

#[tokio::test]
async fn two_databases_of_one_template_are_isolated() {
    let postgres = TestPostgres::shared().unwrap();
    let (one, other) = tokio::join!(database_of_the_harness(postgres), database_of_the_harness(postgres));
    connect(one.url()).await.batch_execute("INSERT INTO made VALUES (1)").await.unwrap();
    assert_eq!(count(one.url()).await, 1);
    assert_eq!(count(other.url()).await, 0);
}

#[test]
fn a_template_is_made_once_by_threads_with_runtimes_of_their_own() {
    let made = std::sync::atomic::AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let migrate = async |url: String| {
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        connect(&url).await.batch_execute("CREATE TABLE made (id int)").await.unwrap();
                        Ok(())
                    };
                    let postgres = TestPostgres::shared().unwrap();
                    let database = postgres.database_from("harness-threads", migrate).await.unwrap();
                    assert_eq!(count(database.url()).await, 0);
                });
            });
        }
    });
    assert_eq!(made.into_inner(), 1);
}

#[tokio::test]
async fn a_template_that_fails_is_made_anew() {
    let postgres = TestPostgres::shared().unwrap();
    let failed = postgres
        .template("harness-fails", async |_| Err(metertrail::Error::invalid("schema", "is bad")))
        .await;
    assert_eq!(failed.unwrap_err().field(), Some("schema"));
    postgres.template("harness-fails", async |_| Ok(())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_not_time_out_the_making_of_a_database() {
    TestPostgres::shared().unwrap().create_database(None).await.unwrap();
}

#[tokio::test]
async fn a_dropped_database_is_gone_though_somebody_is_connected() {
    let postgres = TestPostgres::shared().unwrap();
    let database = postgres.create_database(None).await.unwrap();
    let _connected = connect(database.url()).await;
    let (url, name) = (postgres.url().to_owned(), database.name().to_owned());
    drop(database);
    let admin = connect(&url).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !admin.query("SELECT FROM pg_database WHERE datname = $1", &[&name]).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "{name} is still there");
    }
}

#[tokio::test]
async fn a_missing_template_is_an_error_with_its_cause() {
    let error = TestPostgres::shared().unwrap().create_database(Some("no such")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");
}

#[tokio::test]
async fn psql_takes_the_url() {
    let postgres = TestPostgres::shared().unwrap();
    let database = postgres.create_database(None).await.unwrap();
    let psql = postgres.bin_dir().map_or_else(|| PathBuf::from("psql"), |dir| dir.join("psql"));
    let output =
        Command::new(psql).args([database.url(), "-Atc", "SELECT current_database()"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), database.name(), "{output:?}");
}

#[tokio::test]
async fn a_crash_keeps_what_was_committed() {
    let mut postgres = TestPostgres::start(TestPostgresOptions::new().fsync(true)).unwrap();
    let database = database_of_the_harness(&postgres).await;
    let client = connect(database.url()).await;
    client.batch_execute("INSERT INTO made VALUES (1); INSERT INTO made VALUES (2)").await.unwrap();
    postgres.restart_immediate().await.unwrap();
    assert!(client.simple_query("SELECT 1").await.is_err(), "a connection survived the crash");
    assert_eq!(count(database.url()).await, 2);

    postgres.stop().await.unwrap();
    let config = database.url().parse::<tokio_postgres::Config>().unwrap();
    assert!(config.connect(NoTls).await.is_err(), "a stopped server takes connections");
    postgres.start_again().await.unwrap();
    assert_eq!(count(database.url()).await, 2);
    assert_eq!(postgres.start_again().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(count(database.url()).await, 2);
}

#[test]
fn a_server_that_does_not_start_says_why_and_leaves_nothing() {
    let options = TestPostgresOptions::new().setting("shared_buffers", "plenty");
    let error = TestPostgres::start(options).unwrap_err();
    assert!(error.to_string().contains("shared_buffers"), "{error}");
    let prefix = format!("mt-{}-", std::process::id());
    let with_bad_settings = std::fs::read_dir("/tmp").unwrap().filter_map(Result::ok).filter(|entry| {
        let is_ours = entry.file_name().to_string_lossy().starts_with(&prefix);
        is_ours && std::fs::read_to_string(entry.path().join("log")).is_ok_and(|log| log.contains("plenty"))
    });
    assert_eq!(with_bad_settings.count(), 0);
}

/// Run by [`killed`] in a process of its own, it never comes to its end.
#[test]
fn a_dropped_server_is_gone() {
    let postgres = TestPostgres::start(TestPostgresOptions::new()).unwrap();
    let socket_dir = postgres.socket_dir().unwrap().to_owned();
    let postmaster = postmaster_of(&socket_dir);
    if std::env::var_os(VICTIM).is_some() {
        // It outlives us, and must not keep the server alive.
        let mut outliving =
            Command::new("sleep").arg("60").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        println!("\nvictim {} {}", socket_dir.display(), outliving.id());
        outliving.wait().unwrap();
        unreachable!("the victim was not killed");
    }
    drop(postgres);
    assert!(!socket_dir.exists() && !is_alive(postmaster));
}

#[test]
fn a_process_killed_outright_leaves_nothing() {
    let outliving = killed(|victim| victim.kill().unwrap());
    // Its child lived on, and yet the pipe was at its end.
    assert!(is_alive(outliving));
    signal("KILL", &outliving.to_string());
}

#[test]
fn an_interrupted_process_group_leaves_nothing() {
    // `kill` as a builtin of the shell: not every machine has the program.
    killed(|victim| signal("INT", &format!("-{}", victim.id())));
}

#[test]
fn a_process_killed_while_its_server_starts_leaves_nothing() {
    for pause_ms in [20, 200, 500] {
        let mut victim = victim();
        let prefix = format!("mt-{}-", victim.id());
        let deadline = Instant::now() + Duration::from_secs(60);
        let dirs = || {
            let names = std::fs::read_dir("/tmp").unwrap().filter_map(Result::ok).map(|entry| entry.path());
            names
                .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix))
                .collect::<Vec<_>>()
        };
        while dirs().is_empty() {
            assert!(Instant::now() < deadline, "no server is being started");
            thread::yield_now();
        }
        // Different depths into `initdb`; any of them may be hit.
        thread::sleep(Duration::from_millis(pause_ms));
        victim.kill().unwrap();
        victim.wait().unwrap();
        eventually("the directory vanishes", || dirs().is_empty());
    }
}

/// Kills a process that has a server and a child, and returns the child.
fn killed(kill: impl FnOnce(&mut Child)) -> u32 {
    let mut victim = victim();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let line =
        lines.map_while(Result::ok).find(|line| line.starts_with("victim ")).expect("a started server");
    let words = line.split(' ').collect::<Vec<_>>();
    let (socket_dir, outliving) = (PathBuf::from(words[1]), words[2].parse().unwrap());
    let postmaster = postmaster_of(&socket_dir);
    assert!(is_alive(postmaster));

    kill(&mut victim);
    victim.wait().unwrap();
    eventually("the postmaster ends", || !is_alive(postmaster));
    eventually("the directory vanishes", || !socket_dir.exists());
    outliving
}

/// This test binary again, in a process group of its own, with nothing but [`a_dropped_server_is_gone`].
fn victim() -> Child {
    use std::os::unix::process::CommandExt;

    let module = module_path!().split_once("::").unwrap().1;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::a_dropped_server_is_gone"), "--nocapture"]);
    command.env(VICTIM, "1").process_group(0).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn signal(name: &str, target: &str) {
    let status = Command::new("sh").args(["-c", "kill -s \"$0\" -- \"$1\"", name, target]).status().unwrap();
    assert!(status.success());
}

fn postmaster_of(socket_dir: &Path) -> u32 {
    let text = std::fs::read_to_string(socket_dir.join("data/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

async fn database_of_the_harness(postgres: &TestPostgres) -> TestDatabase {
    let migrate = async |url: String| {
        connect(&url).await.batch_execute("CREATE TABLE made (id int)").await.unwrap();
        Ok(())
    };
    postgres.database_from("harness", migrate).await.unwrap()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn count(url: &str) -> i64 {
    connect(url).await.query_one("SELECT count(*) FROM made", &[]).await.unwrap().get(0)
}
