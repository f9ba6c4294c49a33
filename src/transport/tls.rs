//! Trust, client certificates and ALPN towards upstreams.
//!
//! The roots of the system and those of Mozilla are both trusted: a container image often has
//! none of its own, and a company's own root is only known to the system.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, RootCertStore};

use super::error::SendErrorKind;
use crate::config::settings::{Origin, TlsConfig};

/// A configuration that cannot be used. Tells file and reason, and nothing of a key's bytes.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A file is missing, unreadable, or does not hold what it should.
    #[error("{path}: {reason}")]
    File {
        /// As configured.
        path: String,
        /// A sentence.
        reason: String,
    },
    /// Host, or certificate and key together, make no sense.
    #[error("{0}")]
    Settings(String),
}

/// One upstream's TLS: the name to verify, and what is offered.
pub(super) struct Tls {
    pub(super) name: ServerName<'static>,
    /// Offers `h2` and `http/1.1`.
    pub(super) any: Arc<ClientConfig>,
    /// Offers `http/1.1` only: an upgrade does not exist in HTTP/2 (RFC 9113 8.6).
    pub(super) http1: Arc<ClientConfig>,
}

impl Tls {
    pub(super) fn new(origin: &Origin, settings: &TlsConfig) -> Result<Self, TargetError> {
        let name = ServerName::try_from(origin.host.clone()).map_err(|_| {
            TargetError::Settings(format!("{} is no name that a certificate can have", origin.host))
        })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TargetError::Settings(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier(settings, provider)?);
        let mut any = match client_identity(settings)? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                TargetError::Settings(format!("client_cert and client_key: {error}"))
            })?,
        };
        let mut http1 = any.clone();
        any.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { name, any: Arc::new(any), http1: Arc::new(http1) })
    }
}

/// Certificates that the peer will not have, or that we will not have, are told apart from every
/// other failure, because no repeat helps against them.
pub(super) fn kind_of(error: &rustls::Error) -> SendErrorKind {
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls' enums are open")]
    match error {
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::NoCertificatesPresented
        | rustls::Error::AlertReceived(
            AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateRequired,
        ) => SendErrorKind::TlsCertificate,
        _ => SendErrorKind::TlsProtocol,
    }
}

fn verifier(
    settings: &TlsConfig,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TargetError> {
    let mut roots = Arc::clone(common_roots());
    if let Some(path) = &settings.ca_file {
        let own = Arc::make_mut(&mut roots);
        for certificate in certificates(path)? {
            own.add(certificate).map_err(|error| file_error(path, &error))?;
        }
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
        .build()
        .map_err(|error| TargetError::Settings(format!("no usable root certificate: {error}")))?;
    Ok(verifier)
}

/// Read once per process: the system's file has some hundred certificates.
fn common_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        // Single bad certificates in the system's store are common and no reason to fail.
        let mut system = RootCertStore::empty();
        system.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        // Most are the same, and those of Mozilla lie in the program and take no memory of their own.
        let known: HashSet<_> = roots.roots.iter().cloned().collect();
        roots.extend(system.roots.into_iter().filter(|root| !known.contains(root)));
        roots.roots.shrink_to_fit();
        Arc::new(roots)
    })
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_identity(settings: &TlsConfig) -> Result<Option<Identity>, TargetError> {
    match (&settings.client_cert, &settings.client_key) {
        (None, None) => Ok(None),
        (Some(chain), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| file_error(key, &error))?;
            Ok(Some((certificates(chain)?, key)))
        }
        (Some(_), None) | (None, Some(_)) => {
            let reason = "client_cert and client_key are only useful together";
            Err(TargetError::Settings(reason.into()))
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TargetError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file_error(path, &error))?;
    if found.is_empty() {
        return Err(file_error(path, "no PEM certificate in it"));
    }
    Ok(found)
}

fn file_error(path: &Path, reason: &(impl ToString + ?Sized)) -> TargetError {
    TargetError::File { path: path.display().to_string(), reason: reason.to_string() }
}
