//! hyper and nothing else: the least that a proxy made of it does, as a lower bound for one that does more.
//!
//! It takes the first segment off the path and sets `Host`. Each downstream connection has an upstream
//! connection of its own to each of the two origins, so there is no pool; nothing is checked, limited,
//! repeated, timed, counted or told. What forbear costs beyond this is its own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::Args;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    port: u16,
    /// The origin's port without TLS, for paths that begin with `/plain`
    #[arg(long)]
    plain: u16,
    /// The one with TLS, for all others
    #[arg(long)]
    tls: u16,
    /// The authority that it trusts
    #[arg(long)]
    ca: PathBuf,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> crate::Outcome {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&options.ca)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let origins = Arc::new(Origins {
        plain: options.plain,
        tls: options.tls,
        connector: TlsConnector::from(Arc::new(tls)),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream, origins.clone()));
        }
    })
}

struct Origins {
    plain: u16,
    tls: u16,
    connector: TlsConnector,
}

/// Upstream connections that wait for this downstream connection's next request, by port.
type Idle = Arc<Mutex<HashMap<u16, SendRequest<Incoming>>>>;

async fn serve(stream: TcpStream, origins: Arc<Origins>) {
    let idle = Idle::default();
    let service = service_fn(move |request| {
        let (origins, idle) = (origins.clone(), idle.clone());
        async move {
            let answer = forward(request, &origins, &idle).await;
            // A wrong answer fails the measurement, which is how it is noticed.
            Ok::<_, Infallible>(answer.expect("the origin of a benchmark does not fail"))
        }
    });
    let http = http1::Builder::new().timer(TokioTimer::new()).clone();
    // A client that leaves is the usual end.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn forward(
    mut request: Request<Incoming>,
    origins: &Origins,
    idle: &Idle,
) -> Result<Response<Incoming>, Error> {
    let target = request.uri().path();
    let segment = target.get(1..).and_then(|rest| rest.find('/')).map_or(target.len(), |at| at + 1);
    let (upstream, path) = target.split_at(segment);
    let port = if upstream == "/plain" { origins.plain } else { origins.tls };
    *request.uri_mut() = path.parse::<Uri>()?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let kept = idle.lock().expect("nothing panics in there").remove(&port);
    let mut sender = match kept {
        Some(sender) => sender,
        None => connect(port, origins).await?,
    };
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    idle.lock().expect("nothing panics in there").insert(port, sender);
    Ok(response)
}

async fn connect(port: u16, origins: &Origins) -> Result<SendRequest<Incoming>, Error> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    if port == origins.plain {
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        return Ok(sender);
    }
    let name = ServerName::try_from("localhost")?;
    let stream = origins.connector.connect(name, stream).await?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
