//! Sinks against real servers on loopback: a receiver of webhooks, an Alertmanager's endpoint, a mail server.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metertrail::alert::{
    AddressPolicy, AlertEngine, AlertSink, AlertmanagerSink, EmailSecurity, EmailSink, Incident, IncidentId,
    Level, Notification, NotificationKey, NotificationKind, Severity, Timing, WebhookSecret, WebhookSink,
};
use metertrail::{Error, ErrorKind, MemoryStore};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::{Scripted, at, label, tenant};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A request as it came in: its head, line by line, and its body.
#[derive(Clone, Debug, Default)]
struct Received {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        let of_name = |line: &&String| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
        let line = self.head.iter().find(of_name).unwrap_or_else(|| panic!("no {name} in {:?}", self.head));
        line.split_once(':').unwrap().1.trim()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A server that answers each request with what it is given, in turn, the last one for ever.
struct Receiver {
    port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    async fn start(answers: &[&'static str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (kept, answers) = (Arc::clone(&received), answers.to_vec());
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let mut stream = BufReader::new(stream);
                let mut request = Received::default();
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.unwrap_or(0) == 0 || line == "\r\n" {
                        break;
                    }
                    request.head.push(line.trim_end().to_owned());
                }
                let mut body = vec![0; request.header("content-length").parse().unwrap()];
                stream.read_exact(&mut body).await.unwrap();
                request.body = body;
                let number = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(request);
                    kept.len() - 1
                };
                let answer = answers[number.min(answers.len() - 1)];
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { port, received }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook/T0-secret-path", self.port)
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn loopback() -> AddressPolicy {
    AddressPolicy::public_only().allow("127.0.0.0/8").unwrap()
}

fn secret(text: &str) -> WebhookSecret {
    WebhookSecret::new(text).unwrap()
}

fn webhook(url: &str) -> WebhookSink {
    let sink = WebhookSink::builder(url).secret(secret(SECRET)).secret(secret(OLD_SECRET));
    sink.addresses(loopback()).allow_plain_http().build().unwrap()
}

fn notification(kind: NotificationKind, name: &str) -> Notification {
    let measured = ("7250.5".parse().unwrap(), 5_000.into(), label("ms"));
    let mut incident = Incident::opened(
        Some(tenant(name)),
        label("high_latency"),
        None,
        Severity::Critical,
        measured,
        at(0),
    );
    incident.fired_at = Some(at(0));
    incident.id = IncidentId::from_uuid("0195f000-0000-7000-8000-000000000001".parse().unwrap());
    if kind == NotificationKind::Resolved {
        incident.resolved_at = Some(at(300));
    }
    let key = NotificationKey {
        tenant_id: incident.tenant_id.clone(),
        incident_id: incident.id,
        kind,
        sink: label("hook"),
    };
    Notification::new(key, incident, 1)
}

#[test]
fn the_vector_of_the_specification() {
    let (id, timestamp, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
    let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    assert_eq!(secret(SECRET).sign(id, timestamp, body), signature);
    assert_eq!(secret(SECRET.strip_prefix("whsec_").unwrap()).sign(id, timestamp, body), signature);
    let rotated = format!("v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v1a,xyz {signature}");
    assert!(secret(SECRET).verifies(id, timestamp, body, &rotated));
    assert!(!secret(OLD_SECRET).verifies(id, timestamp, body, &rotated));
    assert!(!secret(SECRET).verifies("msg_other", timestamp, body, signature));
    assert!(!secret(SECRET).verifies(id, timestamp + 1, body, signature));
    assert!(!secret(SECRET).verifies(id, timestamp, br#"{"test": 2432232315}"#, signature));
    assert!(!secret(SECRET).verifies(id, timestamp, body, "v1, v1,AAAA v2,g0hM9SsE"));
    for bad in ["", "whsec_", "whsec_AAAA", "whsec_not base64 at all, whatever it is"] {
        let error = WebhookSecret::new(bad).unwrap_err();
        assert_eq!(error.field(), Some("secret"));
        assert!(bad.is_empty() || !error.to_string().contains("not base64 at all"), "{error}");
    }
}

#[tokio::test]
async fn a_webhook_is_signed_by_every_secret() {
    let receiver = Receiver::start(&[OK]).await;
    let sink = webhook(&receiver.url());
    for second in [10, 20] {
        sink.deliver(&notification(NotificationKind::Firing, "acme"), at(second)).await.unwrap();
    }
    sink.deliver(&notification(NotificationKind::Resolved, "acme"), at(400)).await.unwrap();
    let requests = receiver.received();
    assert_eq!(requests[0].head[0], "POST /hook/T0-secret-path HTTP/1.1");
    assert_eq!(requests[0].header("host"), format!("127.0.0.1:{}", receiver.port));
    assert_eq!(requests[0].header("content-type"), "application/json");
    for request in &requests {
        let (id, timestamp) =
            (request.header("webhook-id"), request.header("webhook-timestamp").parse().unwrap());
        let signatures = request.header("webhook-signature");
        assert_eq!(signatures.split(' ').count(), 2);
        for of in [SECRET, OLD_SECRET] {
            assert!(secret(of).verifies(id, timestamp, &request.body, signatures));
        }
    }
    assert_eq!(requests[0].header("webhook-timestamp"), at(10).timestamp().to_string());
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"), "at every attempt");
    assert_ne!(requests[0].header("webhook-id"), requests[2].header("webhook-id"));
    let (firing, resolved) = (requests[0].json(), requests[2].json());
    assert_eq!(
        (&firing["type"], &resolved["type"]),
        (&"incident.firing".into(), &"incident.resolved".into())
    );
    assert_eq!(firing["data"]["tenant_id"], "acme");
    assert_eq!((&firing["data"]["value"], &firing["data"]["unit"]), (&"7250.5".into(), &"ms".into()));
    let shown = format!("{sink:?}");
    assert!(!shown.contains("secret-path") && !shown.contains("MfKQ9r8"), "{shown}");
}

#[tokio::test]
async fn an_engine_tries_again_what_passes_and_gives_up_what_does_not() {
    let busy = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";
    let receiver = Receiver::start(&[busy, busy, OK]).await;
    let gone = Receiver::start(&["HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n"]).await;
    let rule = Scripted::new(Timing::new());
    rule.say("acme", Level::Breach);
    let engine = AlertEngine::builder(Arc::new(MemoryStore::new())).no_default_rules().rule(rule);
    let engine =
        engine.sink(label("hook"), webhook(&receiver.url())).sink(label("gone"), webhook(&gone.url()));
    let engine = engine.retry(5, Duration::from_secs(10), Duration::from_secs(60)).build().unwrap();
    for second in [0, 11, 32, 100] {
        engine.run(at(second)).await.unwrap();
    }
    let requests = receiver.received();
    assert_eq!((requests.len(), gone.received().len()), (3, 1));
    assert!(requests.iter().all(|one| one.header("webhook-id") == requests[0].header("webhook-id")));
    let dead = engine.dead_letters(None).await.unwrap();
    assert_eq!(
        (dead.len(), dead[0].key.sink.as_str(), dead[0].error.as_str()),
        (1, "gone", "url: answers 410")
    );
}

async fn refusal(sink: &WebhookSink) -> Error {
    sink.deliver(&notification(NotificationKind::Firing, "acme"), at(0)).await.unwrap_err()
}

#[tokio::test]
async fn answers_are_judged_and_redirects_not_followed() {
    let target = Receiver::start(&[OK]).await;
    let to_target = format!("HTTP/1.1 307 Away\r\nlocation: http://127.0.0.1:{}/\r\n\r\n", target.port);
    let cases: [(&str, ErrorKind); 6] = [
        (&to_target, ErrorKind::InvalidInput),
        ("HTTP/1.1 404 No\r\n\r\n", ErrorKind::InvalidInput),
        ("HTTP/1.1 429 Slow down\r\n\r\n", ErrorKind::Unavailable),
        ("HTTP/1.1 500 Ouch\r\n\r\n", ErrorKind::Unavailable),
        ("no http at all\r\n\r\n", ErrorKind::Unavailable),
        ("", ErrorKind::Unavailable),
    ];
    for (answer, kind) in cases {
        let receiver = Receiver::start(&[String::leak(answer.to_owned())]).await;
        assert_eq!(refusal(&webhook(&receiver.url())).await.kind(), kind, "{answer:?}");
        assert_eq!(receiver.received().len(), 1);
    }
    assert!(target.received().is_empty());
    let endless = String::leak(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024)));
    let receiver = Receiver::start(&[endless]).await;
    assert_eq!(
        refusal(&webhook(&receiver.url())).await.kind(),
        ErrorKind::Unavailable,
        "a head without bound"
    );
    let large =
        String::leak(format!("HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n{}", "y".repeat(4_096)));
    let receiver = Receiver::start(&[large]).await;
    webhook(&receiver.url()).deliver(&notification(NotificationKind::Test, "acme"), at(0)).await.unwrap();
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    assert_eq!(refusal(&webhook(&format!("http://{nobody}/"))).await.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn no_address_that_is_not_public_is_connected_to() {
    let receiver = Receiver::start(&[OK]).await;
    let port = receiver.port;
    for host in [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "[::1]",
        "[64:ff9b::7f00:1]",
    ] {
        let sink = WebhookSink::builder(&format!("http://{host}:{port}/")).secret(secret(SECRET));
        let sink = sink.allow_plain_http().build().unwrap();
        let error = refusal(&sink).await;
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some("url")), "{host}: {error}");
    }
    assert!(receiver.received().is_empty());
    for bad in
        ["http://example.org/", "ftp://example.org/", "https://user:pw@example.org/", "https://", "x", ""]
    {
        let error = WebhookSink::builder(bad).secret(secret(SECRET)).build().unwrap_err();
        assert_eq!(error.field(), Some("url"), "{bad}");
        assert!(!error.to_string().contains("pw"));
    }
    assert_eq!(WebhookSink::builder("https://example.org/").build().unwrap_err().field(), Some("secret"));
}

#[test]
fn public_addresses_are_told_from_others() {
    let policy = AddressPolicy::public_only();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    for public in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.0.0",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2001:200::1",
        "64:ff9b::101:101",
        "::ffff:8.8.8.8",
    ] {
        assert!(policy.permits(address(public)), "{public}");
    }
    for other in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:101:101::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        assert!(!policy.permits(address(other)), "{other}");
    }
    let inside = policy.allow("10.1.0.0/16").unwrap().allow("fd00::/8").unwrap().allow("::1").unwrap();
    for (text, may) in [
        ("10.1.255.1", true),
        ("10.2.0.1", false),
        ("::ffff:10.1.2.3", true),
        ("fd12::1", true),
        ("fc12::1", false),
        ("::1", true),
        ("::2", false),
    ] {
        assert_eq!(inside.permits(address(text)), may, "{text}");
    }
    let all = AddressPolicy::public_only().allow("0.0.0.0/0").unwrap();
    assert!(all.permits(address("127.0.0.1")) && !all.permits(address("::1")));
    for bad in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1"] {
        assert_eq!(
            AddressPolicy::public_only().allow(bad).unwrap_err().field(),
            Some("address_block"),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn an_alertmanager_is_reminded_until_the_end() {
    let receiver = Receiver::start(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]).await;
    let rule = Scripted::new(Timing::new());
    rule.say("acme", Level::Breach);
    let sink = AlertmanagerSink::new(&format!("http://127.0.0.1:{}/", receiver.port), loopback()).unwrap();
    let sink = sink.label("service", "chat").unwrap();
    assert_eq!(sink.clone().label("not-a-name", "x").unwrap_err().field(), Some("label"));
    let engines: Vec<AlertEngine> = {
        let store = Arc::new(MemoryStore::new());
        let engine = || AlertEngine::builder(Arc::clone(&store)).no_default_rules().rule(rule.clone());
        (0..3).map(|_| engine().sink(label("alertmanager"), sink.clone()).build().unwrap()).collect()
    };
    let run = async |second| {
        for engine in &engines {
            engine.run(at(second)).await.unwrap();
        }
    };
    for second in [0, 60, 118, 125, 180] {
        run(second).await;
    }
    assert_eq!(receiver.received().len(), 2, "every two minutes");
    rule.say("acme", Level::Calm);
    for second in [245, 300, 420, 900] {
        run(second).await;
    }
    let requests = receiver.received();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[0].head[0], "POST /api/v2/alerts HTTP/1.1");
    let alerts: Vec<Value> = requests.iter().map(|one| one.json()[0].clone()).collect();
    assert!(alerts.iter().all(|alert| alert["labels"] == alerts[0]["labels"]));
    assert_eq!(
        alerts[0]["labels"],
        serde_json::json!({"alertname": "scripted", "severity": "warning", "tenant_id": "acme", "service": "chat"})
    );
    let time = |alert: &Value, name: &str| {
        alert[name].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap()
    };
    assert!(alerts.iter().all(|alert| time(alert, "startsAt") == at(0)));
    assert!((at(480)..at(490)).contains(&time(&alerts[0], "endsAt")), "ends by itself if nothing is heard");
    assert_eq!(time(&alerts[2], "endsAt"), at(245));
}

/// A mail server that speaks SMTP (RFC 5321) as far as is needed, and answers `RCPT` as it is told.
struct MailServer {
    port: u16,
    messages: Arc<Mutex<Vec<Mail>>>,
}

#[derive(Clone, Debug, Default)]
struct Mail {
    from: String,
    to: Vec<String>,
    text: String,
}

impl MailServer {
    async fn start(to_recipients: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let messages: Arc<Mutex<Vec<Mail>>> = Arc::default();
        let kept = Arc::clone(&messages);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    stream.write_all(b"220 test ESMTP\r\n").await.unwrap();
                    let mut mail = Mail::default();
                    let mut line = String::new();
                    while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
                        let command = line.trim_end().to_owned();
                        line.clear();
                        let answer = match command.split(' ').next().unwrap_or_default() {
                            "EHLO" | "HELO" => "250-test\r\n250 8BITMIME",
                            "MAIL" => {
                                mail.from = command;
                                "250 fine"
                            }
                            "RCPT" => {
                                mail.to.push(command);
                                to_recipients
                            }
                            "DATA" => {
                                stream.write_all(b"354 go on\r\n").await.unwrap();
                                while stream.read_line(&mut line).await.unwrap() > 0 && line != ".\r\n" {
                                    mail.text.push_str(
                                        line.strip_prefix("..").map_or(line.as_str(), |_| &line[1..]),
                                    );
                                    line.clear();
                                }
                                line.clear();
                                kept.lock().unwrap().push(std::mem::take(&mut mail));
                                "250 taken"
                            }
                            "QUIT" => "221 bye",
                            _ => "502 what?",
                        };
                        stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
                    }
                });
            }
        });
        Self { port, messages }
    }

    fn sink(&self) -> EmailSink {
        let sink =
            EmailSink::builder("127.0.0.1", "Alerts <alerts@example.org>").security(EmailSecurity::Plain);
        let sink = sink.port(self.port).to("ops@example.org");
        sink.to_tenant(|tenant_id| vec![format!("{}@example.net", tenant_id.as_str().len())]).build().unwrap()
    }
}

/// Quoted-printable (RFC 2045) as text.
fn decoded(text: &str) -> String {
    let joined = text.replace("=\r\n", "");
    let mut bytes = Vec::new();
    let mut rest = joined.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escape = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = escape.filter(|_| *first == b'=').and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn mail_is_sent_and_escapes_what_comes_from_outside() {
    let server = MailServer::start("250 fine").await;
    let sink = server.sink();
    let name = "<b>\"O'Neil\" & söhne</b>";
    sink.deliver(&notification(NotificationKind::Firing, name), at(60)).await.unwrap();
    sink.deliver(&notification(NotificationKind::Firing, name), at(90)).await.unwrap();
    let mails = server.messages.lock().unwrap().clone();
    assert_eq!(mails.len(), 2);
    assert!(mails[0].from.contains("<alerts@example.org>"), "{:?}", mails[0].from);
    let recipients =
        ["RCPT TO:<ops@example.org>".to_owned(), format!("RCPT TO:<{}@example.net>", name.len())];
    assert_eq!(mails[0].to, recipients);
    let text = decoded(&mails[0].text);
    assert!(text.contains("&lt;b&gt;&quot;O&#39;Neil&quot; &amp; söhne&lt;/b&gt;"), "{text}");
    let html = text.split("text/html").nth(1).unwrap();
    assert!(!html.contains("<b>") && html.contains("7250.5 ms"), "{html}");
    let plain = text.split("text/plain").nth(1).unwrap().split("text/html").next().unwrap();
    assert!(plain.contains("Threshold: 5000 ms"), "{plain}");
    assert!(text.contains("Date: Sun, 01 Mar 2026 12:01:00"), "{text}");
    let id = |mail: &Mail| mail.text.lines().find(|line| line.starts_with("Message-ID:")).unwrap().to_owned();
    assert_eq!(id(&mails[0]), id(&mails[1]), "the same at every attempt");
}

#[tokio::test]
async fn a_mail_server_that_refuses_is_told_from_one_that_is_busy() {
    for (answer, kind) in
        [("550 nobody here", ErrorKind::InvalidInput), ("451 later", ErrorKind::Unavailable)]
    {
        let server = MailServer::start(answer).await;
        let refused = server.sink().deliver(&notification(NotificationKind::Firing, "acme"), at(0)).await;
        assert_eq!(refused.unwrap_err().kind(), kind, "{answer}");
        assert!(server.messages.lock().unwrap().is_empty());
    }
    let port = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    let sink = EmailSink::builder("127.0.0.1", "a@example.org").security(EmailSecurity::Plain).port(port);
    let sink = sink.to("b@example.org").build().unwrap();
    let error = sink.deliver(&notification(NotificationKind::Firing, "acme"), at(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let plain = || EmailSink::builder("localhost", "a@example.org").security(EmailSecurity::Plain);
    let error = plain().to("b@example.org").credentials("u", "geheim").build().unwrap_err();
    assert_eq!(error.field(), Some("credentials"));
    let secured = EmailSink::builder("mail.example.org", "a@example.org")
        .credentials("u", "geheim")
        .to("b@example.org");
    assert!(!format!("{secured:?}{:?}", secured.clone().build().unwrap()).contains("geheim"));
    assert_eq!(plain().to("no address").build().unwrap_err().field(), Some("to"));
    assert_eq!(plain().build().unwrap_err().field(), Some("to"));
}
