//! The origin: answers with bytes that were rendered before, over plain TCP and over TLS.
//!
//! It is a process of its own, so that the scheduler accounts for it apart from what is measured, and it
//! reads just enough of HTTP/1.1 to be right for our own load and the proxies between: keep-alive and
//! bodies with a length. Its certificate comes from an authority made at the start, whose root it writes
//! into the folder that it was given: every proxy verifies it.
//!
//! It prints one line, `PLAIN-PORT TLS-PORT`, and ends with its standard input, so that it never outlives
//! whoever started it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::Outcome;

/// What is read at once. Larger than the largest body that our load sends, so that it arrives in few reads.
const BUFFER: usize = 64 * 1024;

/// Answers to paths that end in `/1m`.
pub(crate) const LARGE: usize = 1024 * 1024;

/// Answers to everything else.
pub(crate) const SMALL: usize = 1024;

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    /// Folder that gets `ca.pem`
    #[arg(long)]
    folder: PathBuf,
}

/// Serves until standard input ends.
pub(crate) fn run(options: &Options) -> Outcome {
    std::thread::spawn(|| {
        let mut ignored = Vec::new();
        drop(io::stdin().read_to_end(&mut ignored));
        std::process::exit(0);
    });
    let acceptor = TlsAcceptor::from(Arc::new(identity(&options.folder)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let plain = TcpListener::bind("127.0.0.1:0").await?;
        let secure = TcpListener::bind("127.0.0.1:0").await?;
        println!("{} {}", plain.local_addr()?.port(), secure.local_addr()?.port());
        let answers = Arc::new(Answers { small: rendered(SMALL), large: rendered(LARGE) });
        loop {
            tokio::select! {
                accepted = plain.accept() => {
                    let stream = ready(accepted?.0)?;
                    tokio::spawn(serve(stream, answers.clone()));
                }
                accepted = secure.accept() => {
                    let stream = ready(accepted?.0)?;
                    let (acceptor, answers) = (acceptor.clone(), answers.clone());
                    tokio::spawn(async move { serve(acceptor.accept(stream).await?, answers).await });
                }
            }
        }
    })
}

fn ready(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An authority, whose root goes into the folder, and a certificate for `localhost` and 127.0.0.1.
fn identity(folder: &Path) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // A name of its own: OpenSSL takes a certificate that is named as its issuer for self-signed.
    params.distinguished_name.push(DnType::CommonName, "forbear bench authority");
    let key = KeyPair::generate()?;
    let root = params.self_signed(&key)?;
    std::fs::write(folder.join("ca.pem"), root.pem())?;
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.use_authority_key_identifier_extension = true;
    let leaf = params.signed_by(&key, &issuer)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.into())?;
    // HTTP/1.1 alone: nginx speaks nothing else to upstreams, and all are to do the same work.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
}

fn rendered(length: usize) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n";
    let mut answer = format!("{head}Content-Length: {length}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

/// Answers one connection's requests until it ends.
async fn serve<S>(mut stream: S, answers: Arc<Answers>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    let mut have = 0;
    loop {
        let head = loop {
            if let Some(end) = head_end(&buffer[..have]) {
                break end;
            }
            let read = stream.read(&mut buffer[have..]).await?;
            if read == 0 {
                return Ok(());
            }
            have += read;
        };
        let length = body_length(&buffer[..head])?;
        let is_large = buffer[..head].split(|byte| *byte == b'\r').next().is_some_and(|line| {
            line.strip_suffix(b" HTTP/1.1").is_some_and(|line| line.ends_with(b"/1m"))
        });
        let mut missing = (head + length).saturating_sub(have);
        buffer.copy_within((head + length).min(have)..have, 0);
        have = have.saturating_sub(head + length);
        while missing > 0 {
            let most = missing.min(BUFFER);
            let read = stream.read(&mut buffer[..most]).await?;
            if read == 0 {
                return Ok(());
            }
            missing -= read;
        }
        stream.write_all(if is_large { &answers.large } else { &answers.small }).await?;
        stream.flush().await?;
    }
}

/// Where the head ends, after its empty line.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The announced length, 0 without one. Chunks are an error: whoever sends them is not as cheap as it
/// could be, and should be noticed.
pub(crate) fn body_length(head: &[u8]) -> io::Result<usize> {
    let strange = |what: &str| io::Error::other(what.to_owned());
    let mut length = 0;
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(&value[1..]).unwrap_or_default();
            length = value.trim().parse().map_err(|_| strange("no length"))?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(strange("a body in chunks"));
        }
    }
    Ok(length)
}
