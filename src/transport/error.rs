//! How sending can fail, told so that a caller can decide whether to repeat.

/// An attempt that got no response head.
#[derive(Debug, thiserror::Error)]
#[error("{kind:?}: {detail}")]
pub struct SendError {
    /// What failed.
    pub kind: SendErrorKind,
    /// Whether any byte of the request was written, or the peer said that it was not processed.
    pub nothing_sent: bool,
    /// A sentence for logs; no secret, no address of the upstream's own network.
    pub detail: String,
}

/// What failed, in the order in which an attempt goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendErrorKind {
    /// The name does not exist, or the resolver failed.
    Dns,
    /// The resolver did not answer in time.
    DnsTimeout,
    /// Nobody listens there.
    ConnectRefused,
    /// This process has no file descriptor, memory or port left for a connection. Says nothing
    /// about the upstream.
    OutOfResources,
    /// No connection in time.
    ConnectTimeout,
    /// Any other failure of connect (unreachable, no file descriptors, reset).
    Connect,
    /// The certificate is not trusted, expired, or for another name.
    TlsCertificate,
    /// Any other failure of the TLS handshake.
    TlsProtocol,
    /// A pooled connection was closed by the peer before a byte of the response.
    Stale,
    /// Reset or end of stream after the request began and before the response head.
    Reset,
    /// HTTP/2: the peer said that the request was not processed.
    Refused,
    /// No response head in time.
    HeadTimeout,
    /// What came is no valid HTTP response: garbage, too large a head, too many 1xx.
    BadResponse,
    /// Reading the downstream request body failed, or it was too slow; see [`super::body`].
    RequestBody,
}
