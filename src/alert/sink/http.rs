//! One POST over a connection of its own. Nothing is followed, pooled or resolved twice: the address that was checked is the
//! one that is connected to, so a name that answers otherwise a moment later (DNS rebinding) changes nothing.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::alert::sink::address::AddressPolicy;
use crate::{Error, ErrorKind, Result};

/// The head of an answer may be so long; its body is not read at all.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const AGENT: &str = concat!("metertrail/", env!("CARGO_PKG_VERSION"));

/// Where to post to. It shows its host alone: a path may hold a secret.
#[derive(Clone)]
pub(super) struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
    is_secure: bool,
}

impl Endpoint {
    /// Checks and takes a URL.
    pub(super) fn new(url: &str, may_be_plain: bool) -> Result<Self> {
        let refused = |rule: &'static str| Error::invalid("url", rule);
        let uri: Uri = url.parse().map_err(|_| refused("is none"))?;
        let is_secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if may_be_plain => false,
            Some("http") => return Err(refused("must be https, unless plain http is allowed")),
            _ => return Err(refused("must be https")),
        };
        let authority = uri.authority().ok_or_else(|| refused("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("must not have a user or password"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(refused("has no host"));
        }
        let port = authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        Ok(Self { uri, host, port, is_secure })
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}:{}, ..)", self.host, self.port)
    }
}

/// Posts to endpoints that a policy permits.
#[derive(Clone)]
pub(super) struct Poster {
    policy: AddressPolicy,
    tls: TlsConnector,
}

impl Poster {
    /// Trusts the usual authorities and these besides, each a certificate in DER.
    pub(super) fn new(policy: AddressPolicy, authorities: &[Vec<u8>]) -> Result<Self> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for authority in authorities {
            roots.add(CertificateDer::from(authority.clone())).map_err(|error| {
                Error::invalid("root_certificate", "is no certificate in DER").with_source(error)
            })?;
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config
            .map_err(|error| Error::new(ErrorKind::Misuse, "TLS cannot be set up").with_source(error))?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { policy, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Posts a body; whatever is not a success is an error, transient if it may pass.
    pub(super) async fn post(
        &self,
        endpoint: &Endpoint,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<()> {
        let request = request(endpoint, headers, body)?;
        let stream = TcpStream::connect(self.address(endpoint).await?).await;
        let stream = stream.map_err(|error| unreachable_because("cannot be connected to", error))?;
        let status = if endpoint.is_secure {
            let name = ServerName::try_from(endpoint.host.clone())
                .map_err(|error| Error::invalid("url", "has a host that is no name").with_source(error))?;
            let stream = self.tls.connect(name, stream).await;
            exchange(stream.map_err(|error| unreachable_because("failed the TLS handshake", error))?, request)
                .await?
        } else {
            exchange(stream, request).await?
        };
        judge(status)
    }

    /// The first address of the host that may be connected to.
    async fn address(&self, endpoint: &Endpoint) -> Result<SocketAddr> {
        let found = lookup_host((endpoint.host.as_str(), endpoint.port)).await;
        let mut found = found.map_err(|error| unreachable_because("cannot be resolved", error))?.peekable();
        if found.peek().is_none() {
            return Err(Error::new(ErrorKind::Unavailable, "the endpoint has no address"));
        }
        found.find(|address| self.policy.permits(address.ip())).ok_or_else(|| {
            Error::invalid("url", "has no address that the sink may connect to: it is not a public one")
        })
    }
}

impl fmt::Debug for Poster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poster").field("policy", &self.policy).finish_non_exhaustive()
    }
}

fn request(
    endpoint: &Endpoint,
    headers: &[(&'static str, String)],
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>> {
    let path = endpoint.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = endpoint.uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::post(path)
        .header(HOST, host)
        .header(USER_AGENT, AGENT)
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Error::invalid("header", "cannot be sent").with_source(error))
}

/// One request and the status of its answer. The connection is driven here and ends here.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| unreachable_because("did not answer", error);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let response = Box::pin(sender.send_request(request));
    let answered: Result<Response<Incoming>, hyper::Error> = match select(response, connection).await {
        Either::Left((answered, _)) => answered,
        Either::Right((_, response)) => response.await,
    };
    answered.map(|response| response.status()).map_err(failed)
}

fn judge(status: StatusCode) -> Result<()> {
    if status.is_success() {
        return Ok(());
    }
    let code = status.as_u16();
    if status.is_server_error() || matches!(code, 408 | 425 | 429) {
        return Err(Error::new(ErrorKind::Unavailable, format!("the endpoint answered {code}")));
    }
    if status.is_redirection() {
        return Err(Error::invalid("url", format!("answers {code}, and redirects are not followed")));
    }
    Err(Error::invalid("url", format!("answers {code}")))
}

fn unreachable_because(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the endpoint {what}")).with_source(error)
}
