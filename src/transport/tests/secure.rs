//! TLS over loopback: whom we trust, what we present, and an end that somebody cut.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::transport::error::SendErrorKind;
use crate::transport::{ResponseBodyError, TargetError};

/// An authority, and the folder where its files lie.
pub(super) struct Pki {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: rustls::pki_types::CertificateDer<'static>,
}

pub(super) struct Leaf {
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), root.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder, issuer, root: root.der().clone() }
    }

    pub(super) fn leaf(&self, name: &str, is_expired: bool) -> Leaf {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if is_expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file("leaf.pem"), certificate.pem()).unwrap();
        std::fs::write(self.file("leaf.key"), key.serialize_pem()).unwrap();
        Leaf { chain: vec![certificate.der().clone()], key: key.into() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn trust(&self) -> TlsConfig {
        TlsConfig { ca_file: Some(self.file("ca.pem")), ..TlsConfig::default() }
    }

    fn identity(&self) -> TlsConfig {
        let (cert, key) = (self.file("leaf.pem"), self.file("leaf.key"));
        TlsConfig { client_cert: Some(cert), client_key: Some(key), ..self.trust() }
    }

    /// A target, and a server with this leaf that gives each connection to the script.
    pub(super) async fn serve<F>(
        &self,
        leaf: Leaf,
        alpn: &[&str],
        asks_client: bool,
        script: impl Fn(TlsStream<TcpStream>) -> F + Send + Sync + 'static,
    ) -> SocketAddr
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks_client {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.root.clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(leaf.chain, leaf.key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    tokio::spawn(script(stream));
                }
            }
        });
        address
    }

    pub(super) fn target(&self, address: SocketAddr) -> Arc<Target> {
        target(address, &self.trust())
    }
}

fn target(address: SocketAddr, tls: &TlsConfig) -> Arc<Target> {
    let origin = Origin { scheme: Scheme::Https, host: "localhost".into(), port: address.port() };
    Arc::new(Target::new(&origin, tls, Duration::from_secs(5)).unwrap())
}

async fn say_ok(mut stream: TlsStream<TcpStream>) {
    read_head(&mut stream).await;
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let _ = stream.shutdown().await;
}

#[tokio::test]
async fn a_certificate_of_a_configured_root_is_trusted() {
    let pki = Pki::new();
    // The server listens on IPv4 only, so where `localhost` also means ::1 that is raced.
    let address = pki.serve(pki.leaf("localhost", false), &["http/1.1"], false, say_ok).await;

    let response = send(&pki.target(address), get("/"), OPTIONS).await.unwrap();

    assert_eq!(text(response).await, "ok");
}

#[tokio::test]
async fn certificates_that_prove_nothing_are_told_apart_from_other_failures() {
    let (pki, other) = (Pki::new(), Pki::new());
    for (what, leaf, trust) in [
        ("another name", pki.leaf("elsewhere.test", false), pki.trust()),
        ("expired", pki.leaf("localhost", true), pki.trust()),
        ("unknown root", pki.leaf("localhost", false), other.trust()),
        ("no own root", pki.leaf("localhost", false), TlsConfig::default()),
    ] {
        let address = pki.serve(leaf, &[], false, say_ok).await;

        let error = failure(send(&target(address, &trust), get("/"), OPTIONS).await);

        assert_eq!(
            (error.kind, error.nothing_sent),
            (SendErrorKind::TlsCertificate, true),
            "{what}"
        );
    }
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_is_a_protocol_failure() {
    let (plain, _) = upstream(|listener| async move {
        let mut stream = accept(&listener).await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let address = SocketAddr::from(([127, 0, 0, 1], plain.authority.port_u16().unwrap()));

    let error = failure(send(&target(address, &TlsConfig::default()), get("/"), OPTIONS).await);

    assert_eq!((error.kind, error.nothing_sent), (SendErrorKind::TlsProtocol, true));
}

#[tokio::test]
async fn a_client_certificate_is_presented_where_one_is_asked_for() {
    let pki = Pki::new();
    let address = pki.serve(pki.leaf("localhost", false), &[], true, say_ok).await;

    let with = send(&target(address, &pki.identity()), get("/"), OPTIONS).await.unwrap();
    let without = failure(send(&target(address, &pki.trust()), get("/"), OPTIONS).await);

    assert_eq!(text(with).await, "ok");
    // The refusal follows the handshake (TLS 1.3), so a reset may overtake its alert.
    let kinds = [SendErrorKind::TlsCertificate, SendErrorKind::Reset];
    assert!(kinds.contains(&without.kind), "{without}");
}

#[tokio::test]
async fn a_body_up_to_the_end_of_the_connection_is_whole_only_if_tls_says_so() {
    let pki = Pki::new();
    let head = "HTTP/1.1 200 OK\r\n\r\nall of it?";
    let ended = move |mut stream: TlsStream<TcpStream>| async move {
        read_head(&mut stream).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let cut = move |mut stream: TlsStream<TcpStream>| async move {
        read_head(&mut stream).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream.get_mut().0.shutdown().await.unwrap();
    };
    let ended = pki.serve(pki.leaf("localhost", false), &[], false, ended).await;
    let cut = pki.serve(pki.leaf("localhost", false), &[], false, cut).await;

    let whole = send(&pki.target(ended), get("/"), OPTIONS).await.unwrap();
    assert_eq!(text(whole).await, "all of it?");
    let part = send(&pki.target(cut), get("/"), OPTIONS).await.unwrap();
    let outcome = part.into_body().collect().await.map(|_| ());
    assert_eq!(outcome, Err(ResponseBodyError::Truncated));
}

#[test]
fn a_bad_file_is_named_with_its_reason_and_without_its_content() {
    let pki = Pki::new();
    pki.leaf("localhost", false);
    let garbage = pki.file("garbage.pem");
    std::fs::write(&garbage, "-----BEGIN PRIVATE KEY-----\nTOPSECRET\n").unwrap();
    let origin = Origin { scheme: Scheme::Https, host: "localhost".into(), port: 1 };
    for (tls, name) in [
        (TlsConfig { ca_file: Some(pki.file("absent.pem")), ..TlsConfig::default() }, "absent.pem"),
        (TlsConfig { ca_file: Some(pki.file("leaf.key")), ..TlsConfig::default() }, "leaf.key"),
        (TlsConfig { client_key: Some(garbage), ..pki.identity() }, "garbage.pem"),
        (TlsConfig { client_key: None, ..pki.identity() }, "client_key"),
    ] {
        let error = Target::new(&origin, &tls, Duration::from_secs(1)).err();

        let told = error.as_ref().map(TargetError::to_string).unwrap_or_default();
        assert!(told.contains(name) && !told.contains("SECRET"), "{told}");
    }
}
