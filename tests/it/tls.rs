//! Upstreams behind TLS: whom forbear trusts, what it presents, and ends that somebody cut.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::forbear::Forbear;
use crate::support::raw::{Move, RawClient, RawOrigin};
use crate::support::strict::PLAIN;

const GET: &str = "GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n";

/// An authority, and the folder where its files lie.
struct Pki {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: rustls::pki_types::CertificateDer<'static>,
}

/// What a server presents, and demands.
struct Server {
    config: ServerConfig,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    Expired,
    NotYetValid,
    OtherName,
    SelfSigned,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), root.pem()).unwrap();
        Self { folder, root: root.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self, kind: Kind, alpn: &[&str], asks_client: bool) -> Server {
        let name = if kind == Kind::OtherName { "other.example" } else { "localhost" };
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        match kind {
            Kind::Expired => {
                params.not_before = date_time_ymd(2001, 1, 1);
                params.not_after = date_time_ymd(2002, 1, 1);
            }
            Kind::NotYetValid => {
                params.not_before = date_time_ymd(2090, 1, 1);
                params.not_after = date_time_ymd(2091, 1, 1);
            }
            Kind::Good | Kind::OtherName | Kind::SelfSigned => {}
        }
        let key = KeyPair::generate().unwrap();
        let leaf = if kind == Kind::SelfSigned {
            params.self_signed(&key).unwrap()
        } else {
            params.signed_by(&key, &self.issuer).unwrap()
        };
        std::fs::write(self.file("leaf.pem"), leaf.pem()).unwrap();
        std::fs::write(self.file("leaf.key"), key.serialize_pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks_client {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.root.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(vec![leaf.der().clone()], key.into()).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Server { config }
    }

    /// forbear before this port, trusting the authority.
    fn forbear(&self, address: SocketAddr, settings: &str) -> Forbear {
        self.forbear_without(
            address,
            &format!("ca_file = \"{}\"\n{settings}", self.file("ca.pem").display()),
        )
    }

    fn forbear_without(&self, address: SocketAddr, settings: &str) -> Forbear {
        Forbear::start(&format!(
            "{PLAIN}[upstreams.api]\nurl = \"https://localhost:{}\"\nconnect_timeout = \"1s\"\n\
             attempt_timeout = \"2s\"\nidle_timeout = \"1s\"\n{settings}",
            address.port()
        ))
    }

    fn identity(&self) -> String {
        let (cert, key) = (self.file("leaf.pem"), self.file("leaf.key"));
        format!("client_cert = \"{}\"\nclient_key = \"{}\"\n", cert.display(), key.display())
    }
}

impl Server {
    /// Answers each connection's first request with these bytes; `cut` ends it without
    /// `close_notify`.
    async fn answer(self, bytes: &'static str, cut: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(self.config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    stream.write_all(bytes.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    if cut {
                        stream.get_mut().0.shutdown().await.unwrap();
                    } else {
                        stream.shutdown().await.unwrap();
                    }
                    drop(stream.read_u8().await);
                });
            }
        });
        address
    }

    /// Serves HTTP/2 alone, each request with method, version and path.
    async fn http2(self) -> SocketAddr {
        use hyper_util::rt::{TokioExecutor, TokioIo};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(self.config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let service = hyper::service::service_fn(
                    |request: http::Request<hyper::body::Incoming>| async move {
                        use http_body_util::BodyExt as _;
                        let (head, body) = request.into_parts();
                        let length = body.collect().await?.to_bytes().len();
                        let text =
                            format!("{} {} {:?} {length}", head.method, head.uri, head.version);
                        let body = http_body_util::Full::new(bytes::Bytes::from(text));
                        Ok::<_, hyper::Error>(http::Response::new(body))
                    },
                );
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        address
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn only_a_valid_certificate_of_a_trusted_root_is_sent_a_request() {
    for (kind, says) in [
        (Kind::Expired, "tls_certificate_error"),
        (Kind::NotYetValid, "tls_certificate_error"),
        (Kind::OtherName, "tls_certificate_error"),
        (Kind::SelfSigned, "tls_certificate_error"),
    ] {
        let pki = Pki::new();
        let address = pki.server(kind, &[], false).answer(OK, false).await;
        let forbear = pki.forbear(address, "");
        let got = RawClient::connect(forbear.proxy()).await.ask(GET).await;
        assert_eq!(got.status, 502, "{}", got.text());
        assert!(got.field("proxy-status").unwrap().contains(says), "{}", got.head);
        assert!(got.text().contains("upstream_unreachable"), "{}", got.text());
    }
    let pki = Pki::new();
    let address = pki.server(Kind::Good, &[], false).answer(OK, false).await;
    let got = RawClient::connect(pki.forbear(address, "").proxy()).await.ask(GET).await;
    assert_eq!((got.status, got.text().as_str()), (200, "ok"));
    let stranger = pki.forbear_without(address, "");
    let got = RawClient::connect(stranger.proxy()).await.ask(GET).await;
    assert_eq!(got.status, 502, "an unknown root: {}", got.text());
}

#[tokio::test]
async fn a_client_certificate_is_presented_where_there_is_one() {
    let pki = Pki::new();
    let address = pki.server(Kind::Good, &[], true).answer(OK, false).await;
    let with = pki.forbear(address, &pki.identity());
    let got = RawClient::connect(with.proxy()).await.ask(GET).await;
    assert_eq!((got.status, got.text().as_str()), (200, "ok"));
    let got = RawClient::connect(pki.forbear(address, "").proxy()).await.ask(GET).await;
    assert_eq!(got.status, 502, "without one: {}", got.text());
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_or_stalls_or_hangs_up_is_told_as_such() {
    let pki = Pki::new();
    pki.server(Kind::Good, &[], false);
    for (name, script, statuses) in [
        ("plain text", vec![Move::AwaitBytes(1), Move::text(OK), Move::AwaitEof], [502, 502]),
        (
            "garbage",
            vec![Move::AwaitBytes(1), Move::Write(vec![0x16; 200]), Move::AwaitEof],
            [502, 502],
        ),
        ("hangs up", vec![Move::AwaitBytes(1), Move::Close], [502, 502]),
        ("resets", vec![Move::AwaitBytes(1), Move::Reset], [502, 502]),
        ("stalls", vec![Move::AwaitEof], [504, 502]),
    ] {
        let origin = RawOrigin::start(vec![script]).await;
        let forbear = pki.forbear(origin.addr, "");
        let got = RawClient::connect(forbear.proxy()).await.ask(GET).await;
        assert!(statuses.contains(&got.status), "{name}: {} {}", got.status, got.text());
        assert!(got.text().contains("upstream_unreachable"), "{name}: {}", got.text());
        assert!(!origin.received_text(0).contains("GET"), "{name}: plain text went up");
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_no_end_of_a_body() {
    for (answer, cut, whole) in [
        ("HTTP/1.1 200 OK\r\n\r\nok", false, true),
        ("HTTP/1.1 200 OK\r\n\r\nok", true, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", true, false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", true, false),
        (OK, true, true),
    ] {
        let pki = Pki::new();
        let address = pki.server(Kind::Good, &[], false).answer(answer, cut).await;
        let forbear = pki.forbear(address, "");
        let mut client = RawClient::connect(forbear.proxy()).await;
        client.send(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        let (rest, _) = client.rest().await;
        let text = String::from_utf8_lossy(&rest).into_owned();
        let chunks_end = text.ends_with("0\r\n\r\n");
        let length_fits = text.contains("content-length: 2\r\n") && text.ends_with("ok");
        assert_eq!(chunks_end || length_fits, whole, "{answer:?} cut {cut}: {text}");
    }
}

#[tokio::test]
async fn an_upstream_that_offers_http2_gets_it_and_bodies_arrive_whole() {
    let pki = Pki::new();
    let address = pki.server(Kind::Good, &["h2", "http/1.1"], false).http2().await;
    let forbear = pki.forbear(address, "");
    let mut client = RawClient::connect(forbear.proxy()).await;
    let got = client
        .ask(
            "POST /api/a%2Fb?q HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\
        Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )
        .await;
    assert_eq!(got.status, 200, "{}", got.text());
    let port = address.port();
    assert_eq!(got.text(), format!("POST https://localhost:{port}/a%2Fb?q HTTP/2.0 5"));
    let got = client.ask(GET).await;
    assert_eq!(got.text(), format!("GET https://localhost:{port}/x HTTP/2.0 0"));
}

#[tokio::test]
async fn an_absolute_target_with_https_is_served_over_tls_and_led_back_the_same_way() {
    const MOVED: &str = "HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n";
    let pki = Pki::new();
    let address = pki.server(Kind::Good, &[], false).answer(MOVED, false).await;
    let forbear = pki.forbear(address, "");
    let origin = format!("https://localhost:{}", address.port());
    for (target, location) in [
        (format!("{origin}/x"), "/y"),
        (forbear.url("/api/x"), "/api/y"),
        ("/api/x".to_owned(), "/api/y"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let got = RawClient::connect(forbear.proxy()).await.ask(bytes).await;
        assert_eq!((got.status, got.field("location")), (302, Some(location)), "{target}");
    }
}
