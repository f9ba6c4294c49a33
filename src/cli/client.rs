//! Talks to the admin API of a running forbear: plain HTTP/1.1, one request per connection.
//!
//! Its errors are read by a person whose probe or script has just failed, so each one says what
//! was tried and what to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::AdminArgs;
use crate::config::secret::Secret;

/// An answer of the admin API: thousands of keys, not a download.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Connect and answer together; longer than the server takes for a reload.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(40);

/// Where to ask, and with which token.
#[derive(Debug)]
pub struct Client {
    /// Host and port, as in a URL.
    authority: String,
    token: Option<Secret>,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// Of the answer.
    pub status: StatusCode,
    /// JSON, or a string where it was something else.
    pub body: Value,
}

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// `--admin` makes no sense.
    #[error("--admin {0:?} is not an address of an admin listener; write http://HOST:PORT")]
    Address(String),
    /// `--token-file` cannot be used.
    #[error("cannot read the token from {}: {problem}", file.display())]
    Token {
        /// As given.
        file: PathBuf,
        /// Why not.
        problem: String,
    },
    /// Nobody is there.
    #[error(
        "nothing listens on {0}: is forbear running? \
         Start it with `forbear run`, or name another address with --admin"
    )]
    NobodyThere(String),
    /// Somebody is there, and it went wrong all the same.
    #[error("no answer from {authority}: {problem}")]
    NoAnswer {
        /// Whom we asked.
        authority: String,
        /// What happened.
        problem: String,
    },
    /// It answered that it does not want to.
    #[error("{detail}")]
    Refused {
        /// Of the answer.
        status: StatusCode,
        /// The sentence of the problem body.
        detail: String,
    },
}

impl Client {
    /// Reads the token, checks the address.
    ///
    /// # Errors
    /// When either cannot be used; both are mistakes in what was typed.
    pub fn new(args: &AdminArgs) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(args.url.clone());
        let url: Uri = args.url.parse().map_err(|_| wrong())?;
        let plain = url.scheme_str().is_none_or(|scheme| scheme == "http");
        let authority = url.authority().filter(|_| plain && url.path().len() <= 1);
        let authority = authority.ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err(wrong());
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self {
            authority: format!("{}:{port}", authority.host()),
            token: args.token_file.as_deref().map(read_token).transpose()?,
        })
    }

    /// Whom this asks, as in a URL.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Asks for something that must be there.
    ///
    /// # Errors
    /// Also when the answer is not a success.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, None).await?.success()
    }

    /// Changes something.
    ///
    /// # Errors
    /// Also when the answer is not a success.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.ask(Method::POST, path, Some(body)).await?.success()
    }

    /// Asks, and takes any status for an answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, ClientError> {
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, self.exchange(method, path, body));
        answer.await.unwrap_or_else(|_| Err(self.no_answer(&"it took too long")))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, ClientError> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| {
            if error.kind() == std::io::ErrorKind::ConnectionRefused {
                ClientError::NobodyThere(self.authority.clone())
            } else {
                self.no_answer(&error)
            }
        })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| self.no_answer(&error))?;
        let request = self.request(method, path, body)?;
        let answer = async {
            let response =
                sender.send_request(request).await.map_err(|error| self.no_answer(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| self.no_answer(&error))?.to_bytes();
            let text = || Value::String(String::from_utf8_lossy(&body).trim().to_owned());
            Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or_else(|_| text()) })
        };
        // The connection ends early only with an error, which the answer reports as well.
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        if let Some(token) = &self.token {
            let value = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
            let mut value = value
                .map_err(|_| self.no_answer(&"the token has characters that no header may"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = body.map(ToString::to_string);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::from(body.unwrap_or_default())).map_err(|error| self.no_answer(&error))
    }

    fn no_answer(&self, problem: &dyn std::fmt::Display) -> ClientError {
        ClientError::NoAnswer { authority: self.authority.clone(), problem: problem.to_string() }
    }
}

impl Answer {
    fn success(self) -> Result<Value, ClientError> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let detail = self.body.get("detail").and_then(Value::as_str);
        let detail = detail.map_or_else(
            || format!("the answer was {}; is this the admin listener of a forbear?", self.status),
            str::to_owned,
        );
        Err(ClientError::Refused { status: self.status, detail })
    }
}

fn read_token(file: &Path) -> Result<Secret, ClientError> {
    let wrong = |problem: String| ClientError::Token { file: file.to_owned(), problem };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    match text.trim() {
        "" => Err(wrong("it is empty".to_owned())),
        token => Ok(Secret::new(token)),
    }
}

/// A path segment with everything escaped that is not plainly part of a name (RFC 3986 2.3).
pub fn segment(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}
