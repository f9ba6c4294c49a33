//! Who may ask what, decided before any handler runs.
//!
//! Loopback is not a boundary for a browser: any page that is open on the same machine can send
//! requests there, and with a DNS name that points to 127.0.0.1 it can even read the answers. So
//! the name in `Host` must be one of loopback's own, and what changes something is refused when it
//! comes from another origin. Beyond that a token decides, if one is set; where the listener is not
//! on loopback, everything but the probes and the metrics needs it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::config::secret::Secret;

/// What the guard knows. The token can be renewed without a restart.
pub struct Access {
    token: ArcSwapOption<Secret>,
    loopback: bool,
}

impl Access {
    /// `loopback` says whether the listener is bound to a loopback address.
    pub fn new(token: Option<Secret>, loopback: bool) -> Self {
        Self { token: ArcSwapOption::from_pointee(token), loopback }
    }

    /// Takes a new token, or none.
    pub fn set_token(&self, token: Option<Secret>) {
        self.token.store(token.map(Arc::new));
    }

    /// Why the request is refused, if it is.
    fn refuse(&self, request: &Request) -> Option<Problem> {
        let path = request.uri().path();
        let public = matches!(path, "/healthz" | "/readyz" | "/metrics");
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if self.loopback && !has_loopback_name(request) {
            return Some(forbidden(
                "forbidden_host",
                "This listener is on loopback and answers only to localhost, 127.0.0.1 and [::1]: \
                 another name may be a DNS rebinding attack. Use one of them in the URL.",
            ));
        }
        if !reads && is_cross_origin(request) {
            return Some(forbidden(
                "forbidden_origin",
                "This was sent by a web page of another origin. Changes can be made from forbear's \
                 own page, with the forbear command or with curl.",
            ));
        }
        let needs_token = if self.loopback { !reads } else { !public };
        let token = self.token.load();
        let permitted = match token.as_deref() {
            Some(token) => !needs_token || bearer(request).is_some_and(|given| same(given, token)),
            // Without a token only loopback is trusted; configuration refuses anything else, and
            // this holds even if it should not.
            None => self.loopback || !needs_token,
        };
        (!permitted).then(|| {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "This needs the admin token: send `Authorization: Bearer <token>`, or give the \
                 forbear command --token-file."
                    .to_owned(),
            )
        })
    }
}

/// The middleware in front of every handler.
pub(super) async fn guard(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(problem) = access.refuse(&request) else {
        return next.run(request).await;
    };
    tracing::warn!(
        method = %request.method(),
        path = request.uri().path(),
        "refused a request to the admin listener"
    );
    let mut response = problem.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn forbidden(code: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, code, detail.to_owned())
}

/// Whether `Host`, and the target's authority if it has one, are names of loopback, on any port.
fn has_loopback_name(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let target = request.uri().authority().map(|authority| authority.as_str());
    host.to_str().is_ok_and(is_loopback) && target.is_none_or(is_loopback)
}

fn is_loopback(authority: &str) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => authority,
    };
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "localhost" | "127.0.0.1" | "[::1]") || name.ends_with(".localhost")
}

/// Whether a browser says that another page sent this. Commands and scripts say nothing.
fn is_cross_origin(request: &Request) -> bool {
    let header = |name: &str| request.headers().get(name).map(|value| value.as_bytes());
    let own_page = |origin: &[u8]| {
        let host = header(HOST.as_str()).unwrap_or_default();
        origin.strip_prefix(b"http://").is_some_and(|rest| rest.eq_ignore_ascii_case(host))
    };
    let foreign_page = header(ORIGIN.as_str()).is_some_and(|origin| !own_page(origin));
    let site = header("sec-fetch-site");
    // Whatever else a browser may come to say, only these two are our own.
    foreign_page || site.is_some_and(|site| site != b"same-origin" && site != b"none")
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares in a time that depends on the length of what was given, not on how much of it is
/// right.
fn same(given: &str, token: &Secret) -> bool {
    let token = token.reveal().as_bytes();
    let mut difference = given.len() ^ token.len();
    for (index, byte) in given.bytes().enumerate() {
        let expected = token.get(index).copied().unwrap_or(0);
        difference |= usize::from(std::hint::black_box(byte ^ expected));
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_loopback_pass() {
        for (authority, passes) in [
            ("localhost", true),
            ("LOCALHOST:8081", true),
            ("forbear.localhost:1", true),
            ("127.0.0.1:8081", true),
            ("[::1]:8081", true),
            ("[::1]", true),
            ("", false),
            ("evil.example", false),
            ("localhost.evil.example:8081", false),
            ("evillocalhost", false),
            ("127.0.0.1.nip.io", false),
            ("127.0.0.1:80@evil.example", false),
        ] {
            assert_eq!(is_loopback(authority), passes, "{authority}");
        }
    }

    #[test]
    fn a_token_is_right_only_as_a_whole() {
        let token = Secret::new("s3cret");
        for (given, right) in
            [("s3cret", true), ("s3cre", false), ("s3crets", false), ("", false), ("S3cret", false)]
        {
            assert_eq!(same(given, &token), right, "{given}");
        }
    }
}
