//! The server as a process: where its programs are, how it starts, and that it ends when we do.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, ChildStdout, Command, Stdio};

use super::admin::unavailable;
use crate::{Error, ErrorKind, Result};

/// How a [`TestPostgres`](super::TestPostgres) is started.
///
/// ```
/// use metertrail::testing::postgres::TestPostgresOptions;
///
/// let options = TestPostgresOptions::new().fsync(true).setting("max_wal_size", "4GB");
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct TestPostgresOptions {
    fsync: bool,
    settings: Vec<(String, String)>,
}

impl TestPostgresOptions {
    /// No syncing to disk and no further settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether commits are synced to disk (default: no). Benches want it, since it is what a commit costs. A test that
    /// crashes the server does not need it: what the server has written survives anything but a crash of the machine.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.fsync = fsync;
        self
    }

    /// One more server setting, as in `postgresql.conf`. The last one of a name wins.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    fn server_arguments(self) -> impl Iterator<Item = String> {
        let sync = if self.fsync { "on" } else { "off" };
        let base = [
            ("listen_addresses", ""),
            ("max_connections", "200"),
            ("fsync", sync),
            ("full_page_writes", sync),
            ("timezone", "UTC"),
        ];
        let base = base.map(|(name, value)| (name.to_owned(), value.to_owned()));
        base.into_iter().chain(self.settings).map(|(name, value)| format!("--{name}={value}"))
    }
}

/// Our end of the [`SUPERVISOR`].
#[derive(Debug)]
pub(super) struct Supervisor {
    child: Child,
    commands: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Supervisor {
    /// Starts the supervisor and its server, and waits until that takes connections.
    pub(super) fn spawn(bin_dir: &Path, options: TestPostgresOptions) -> Result<(Self, PathBuf)> {
        // Postgres refuses to run as root. The owner of `/proc/self` is the effective user.
        let is_root = fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
        let mut command = Command::new(if is_root { "setpriv" } else { "sh" });
        if is_root {
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "sh"]);
        }
        command.args(["-c", SUPERVISOR, "metertrail-postgres"]).arg(process::id().to_string()).arg(bin_dir);
        command.args(options.server_arguments()).current_dir("/");
        // The pipes of the standard library are closed on exec: no other child keeps the server alive.
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| unavailable("the test server's supervisor does not start", error))?;
        let (Some(commands), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new(ErrorKind::Unavailable, "the test server's supervisor has no pipes"));
        };
        let mut this = Self { child, commands: Some(commands), replies: BufReader::new(replies) };
        let socket_dir = this.reply()?.into();
        Ok((this, socket_dir))
    }

    pub(super) fn ask(&mut self, command: &str) -> Result<String> {
        if let Some(commands) = &mut self.commands {
            writeln!(commands, "{command}")
                .map_err(|error| unavailable("the test server's supervisor does not listen", error))?;
        }
        self.reply()
    }

    fn reply(&mut self) -> Result<String> {
        let mut line = String::new();
        self.replies
            .read_line(&mut line)
            .map_err(|error| unavailable("the test server's supervisor does not answer", error))?;
        match line.trim_end().split_once(' ') {
            Some(("failed", log)) => {
                Err(Error::new(ErrorKind::Unavailable, format!("the test server does not start: {log}")))
            }
            Some((_, detail)) => Ok(detail.to_owned()),
            None if line.is_empty() => Err(Error::new(
                ErrorKind::Unavailable,
                "the test server's supervisor ended; as root it needs a user `postgres`, who comes with the package",
            )),
            None => Ok(String::new()),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.commands.take());
        // It only fails if somebody else has waited for the child.
        let _ = self.child.wait();
    }
}

pub(super) fn find_bin_dir() -> Result<PathBuf> {
    let asked = if let Some(bin_dir) = env::var_os("METERTRAIL_TEST_PG_BIN") {
        ("METERTRAIL_TEST_PG_BIN", PathBuf::from(bin_dir))
    } else if let Some(major) = env::var_os("METERTRAIL_TEST_PG_MAJOR") {
        ("METERTRAIL_TEST_PG_MAJOR", Path::new("/usr/lib/postgresql").join(major).join("bin"))
    } else {
        return packaged_bin_dir()
            .or_else(configured_bin_dir)
            .or_else(|| env::split_paths(&env::var_os("PATH")?).find(|dir| is_bin_dir(dir)))
            .ok_or_else(|| Error::new(ErrorKind::Misuse, NOT_FOUND));
    };
    let (variable, bin_dir) = asked;
    if is_bin_dir(&bin_dir) {
        return Ok(bin_dir);
    }
    let message = format!("{variable} names {}, which has no `initdb` and `postgres`", bin_dir.display());
    Err(Error::new(ErrorKind::Misuse, message))
}

fn packaged_bin_dir() -> Option<PathBuf> {
    let majors = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(io::Result::ok).filter_map(|entry| {
        let major = entry.file_name().to_str()?.parse::<u32>().ok()?;
        Some((major, entry.path().join("bin"))).filter(|(_, bin_dir)| is_bin_dir(bin_dir))
    });
    majors.max().map(|(_, bin_dir)| bin_dir)
}

fn configured_bin_dir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output().ok()?;
    let bin_dir = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end());
    Some(bin_dir).filter(|bin_dir| is_bin_dir(bin_dir))
}

fn is_bin_dir(dir: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| dir.join(program).is_file())
}

const NOT_FOUND: &str = "no Postgres to test with. Install one (`apt-get install postgresql`), or start one in Docker \
    (`docker run --rm -d -p 5432:5432 -e POSTGRES_PASSWORD=test postgres:17`) and set \
    TEST_DATABASE_URL=postgresql://postgres:test@localhost:5432/postgres, or set TEST_DATABASE_URL to any server on which \
    databases may be created, or METERTRAIL_TEST_PG_BIN to a directory with `initdb` and `postgres`";

/// Parent of the server. It holds the read end of a pipe whose write end only our process has, so that our end, of
/// whatever kind, is an end of file to it: then it stops the server and removes the directory. It is in place before
/// there is a server or a directory, and no signal to our process group reaches it.
const SUPERVISOR: &str = r#"
trap '' HUP INT TERM PIPE
bin=$2
dir=$(mktemp -d "/tmp/mt-$1-XXXXXX") || exit 1
shift 2
exec 2>>"$dir/log"
server=

start() {
    if [ -n "$server" ] && kill -0 "$server"; then
        echo "failed it runs already"
        return
    fi
    "$bin/postgres" -D "$dir/data" -k "$dir" -p 5432 "$@" </dev/null >>"$dir/log" &
    server=$!
    tries=0
    while [ $tries -lt 3000 ] && kill -0 "$server"; do
        case $(sed -n '1p;8p' "$dir/data/postmaster.pid" | tr '\n' ' ') in
            "$server ready"*) echo "ready $dir"; return ;;
        esac
        tries=$((tries + 1))
        sleep 0.02
    done
    stop QUIT
    fail
}
stop() {
    if [ -n "$server" ]; then
        kill -"$1" "$server"
        wait "$server"
        server=
    fi
}
fail() {
    echo "failed $(tail -n 8 "$dir/log" | tr '\n' ' ')"
}

if "$bin/initdb" -D "$dir/data" -U postgres --auth=trust --no-sync -E UTF8 --locale=C >>"$dir/log"; then
    start "$@"
else
    fail
fi
while read -r command; do
    case $command in
        start) start "$@" ;;
        crash) stop QUIT; echo stopped ;;
        stop) stop INT; echo stopped ;;
    esac
done
stop QUIT
rm -rf "$dir" || { sleep 1; rm -rf "$dir"; }
"#;
