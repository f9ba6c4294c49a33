//! The smallest honest HTTP client: one kept connection, one attempt, no opinion.
//!
//! A worker of the demo's job has one, as a worker of a pipeline has a session. Not the proxy's
//! own pool: the demo must not test forbear with forbear.

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why there was no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL is none.
    #[error("the base URL is not http://host:port[/prefix]: {0}")]
    BaseUrl(String),
    /// The request cannot be built, because the path is none.
    #[error("the path is none")]
    Path(#[source] http::Error),
    /// No connection.
    #[error("connecting to {0}")]
    Connect(String, #[source] std::io::Error),
    /// The exchange broke off.
    #[error("exchanging a request and its answer")]
    Exchange(#[source] hyper::Error),
}

/// A client of one base URL.
#[derive(Debug)]
pub struct Client {
    authority: String,
    host: HeaderValue,
    prefix: String,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client whose paths are appended to `base_url`; connects when it is used.
    ///
    /// # Errors
    /// `base_url` is not of the form `http://host:port[/prefix]`.
    pub fn new(base_url: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::BaseUrl(base_url.to_owned());
        let uri: Uri = base_url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?.as_str().to_owned();
        let host = HeaderValue::try_from(&authority).map_err(|_| wrong())?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { authority, host, prefix, connection: None })
    }

    /// Sends one request and reads the whole answer. A failed connection is not used again.
    ///
    /// # Errors
    /// There was no complete answer; the request may or may not have been carried out.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Bytes>, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header(HOST, self.host.clone())
            .body(Full::new(body))
            .map_err(ClientError::Path)?;
        let mut connection = self.connected().await?;
        let response = connection.send_request(request).await.map_err(ClientError::Exchange)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(ClientError::Exchange)?.to_bytes();
        self.connection = Some(connection);
        Ok(Response::from_parts(head, body))
    }

    /// The kept connection if it is still good, else a new one.
    async fn connected(&mut self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        if let Some(mut kept) = self.connection.take()
            && kept.ready().await.is_ok()
        {
            return Ok(kept);
        }
        let stream = TcpStream::connect(&self.authority)
            .await
            .map_err(|error| ClientError::Connect(self.authority.clone(), error))?;
        // Only the speed of small requests depends on it.
        let _ = stream.set_nodelay(true);
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(ClientError::Exchange)?;
        // Its errors are also the sender's.
        tokio::spawn(connection);
        Ok(sender)
    }
}
