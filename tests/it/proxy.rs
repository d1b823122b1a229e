//! A proxy between a store and its database that breaks connections at the worst moment.
//!
//! It reads the client's messages, so it knows the `COMMIT` of a transaction that writes events, and does to it what a
//! test has armed it with.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// What happens to the next commit of events.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The connection ends before the server hears of the commit.
    CutBefore,
    /// The server commits, and the connection ends before its reply arrives.
    CutAfter,
    /// The commit is held up and then goes on as if nothing had been.
    Delay(Duration),
    /// The commit, and whatever comes after it, is swallowed; the connection stays open.
    BlackHole,
    /// The server commits, but its reply never arrives; the connection stays open.
    Silence,
}

#[derive(Debug, Default)]
struct State {
    armed: Mutex<VecDeque<Fault>>,
    fired: AtomicUsize,
    commits: AtomicUsize,
    connections: AtomicUsize,
    /// Nothing passes any more, on any connection.
    black: AtomicBool,
}

/// Listens on a port of 127.0.0.1 for as long as it lives.
#[derive(Debug)]
pub(crate) struct Proxy {
    url: String,
    state: Arc<State>,
    accept: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(database_url: &str) -> Self {
        let config: Config = database_url.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut url = format!(
            "host=127.0.0.1 port={port} user={} dbname={}",
            config.get_user().unwrap_or("postgres"),
            config.get_dbname().unwrap()
        );
        if let Some(password) = config.get_password() {
            write!(url, " password='{}'", String::from_utf8_lossy(password)).unwrap();
        }
        let state = Arc::new(State::default());
        let serve = Arc::clone(&state);
        let accept = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                serve.connections.fetch_add(1, Ordering::Relaxed);
                let (state, config) = (Arc::clone(&serve), config.clone());
                tokio::spawn(async move { drop(connect(client, &config, &state).await) });
            }
        });
        Self { url, state, accept }
    }

    /// The database through the proxy.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Arms it for the next commit of events, after those that are armed already.
    pub(crate) fn arm(&self, fault: Fault) {
        self.state.armed.lock().unwrap().push_back(fault);
    }

    /// How many faults have happened.
    pub(crate) fn fired(&self) -> usize {
        self.state.fired.load(Ordering::Acquire)
    }

    /// How many commits of events were seen, broken ones included.
    pub(crate) fn commits(&self) -> usize {
        self.state.commits.load(Ordering::Acquire)
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Acquire)
    }

    /// From now on nothing passes; connections stay open and new ones are accepted.
    pub(crate) fn blacken(&self) {
        self.state.black.store(true, Ordering::Release);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn connect(client: TcpStream, config: &Config, state: &Arc<State>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_hosts().first() {
        Some(Host::Unix(directory)) => {
            let path: PathBuf = directory.join(format!(".s.PGSQL.{port}"));
            pump(client, UnixStream::connect(path).await?, state).await
        }
        Some(Host::Tcp(host)) => pump(client, TcpStream::connect((host.as_str(), port)).await?, state).await,
        None => Err(io::Error::other("the database's URL has no host")),
    }
}

async fn pump<S>(client: TcpStream, server: S, state: &Arc<State>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = tokio::io::split(server);
    let line = Line { muted: AtomicBool::new(false), answered: Notify::new() };
    tokio::select! {
        result = up(BufReader::new(from_client), to_server, state, &line) => result,
        result = down(BufReader::new(from_server), to_client, state, &line) => result,
    }
}

/// What the two directions of one connection know of each other.
struct Line {
    /// Replies are swallowed.
    muted: AtomicBool,
    /// The server was ready for the next query while it was muted.
    answered: Notify,
}

/// From the client to the server. Its end ends the connection.
async fn up(
    mut client: impl AsyncRead + Unpin,
    mut server: impl AsyncWrite + Unpin,
    state: &State,
    line: &Line,
) -> io::Result<()> {
    // The first messages have no type: requests for encryption, then the start-up.
    loop {
        let body = counted(&mut client, Vec::new()).await?;
        server.write_all(&body).await?;
        if body.get(4..6) == Some(&[0, 3]) {
            break;
        }
    }
    let mut writes_events = false;
    loop {
        let kind = client.read_u8().await?;
        let message = counted(&mut client, vec![kind]).await?;
        if state.black.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
        let text = String::from_utf8_lossy(&message[5..]);
        if kind == b'P' && text.contains("metertrail.tenant_usage_realtime (") {
            writes_events = true;
        }
        if kind != b'Q' || text.trim_end_matches('\0') != "COMMIT" || !writes_events {
            server.write_all(&message).await?;
            continue;
        }
        writes_events = false;
        state.commits.fetch_add(1, Ordering::AcqRel);
        let fault = state.armed.lock().unwrap().pop_front();
        state.fired.fetch_add(usize::from(fault.is_some()), Ordering::AcqRel);
        match fault {
            Some(Fault::CutBefore) => return Ok(()),
            Some(Fault::CutAfter) => {
                line.muted.store(true, Ordering::Release);
                server.write_all(&message).await?;
                line.answered.notified().await;
                return Ok(());
            }
            Some(Fault::BlackHole) => while client.read_u8().await.is_ok() {},
            Some(Fault::Silence) => {
                line.muted.store(true, Ordering::Release);
                server.write_all(&message).await?;
            }
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                server.write_all(&message).await?;
            }
            None => server.write_all(&message).await?,
        }
    }
}

/// From the server to the client.
async fn down(
    mut server: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
    state: &State,
    line: &Line,
) -> io::Result<()> {
    loop {
        let kind = server.read_u8().await?;
        let message = counted(&mut server, vec![kind]).await?;
        if state.black.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
        if !line.muted.load(Ordering::Acquire) {
            client.write_all(&message).await?;
        } else if kind == b'Z' {
            line.answered.notify_one();
        }
    }
}

/// A message with its length in front of it.
async fn counted(from: &mut (impl AsyncRead + Unpin), mut message: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let start = message.len();
    message.extend(length.to_be_bytes());
    message.resize(start + length as usize, 0);
    from.read_exact(&mut message[start + 4..]).await?;
    Ok(message)
}
