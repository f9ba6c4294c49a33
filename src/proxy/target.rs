//! What a request asks for, read from its request line and `Host`, and nothing dialled from it.
//!
//! An upstream's address comes from the configuration alone. The target and `Host` only choose
//! between configured upstreams, so whatever they say, the worst is a refusal.

use std::net::{IpAddr, SocketAddr};

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Version, header};

use super::reject::{Code, Rejection, shown};
use crate::config::settings::Scheme;
use crate::gateway::route::default_port;

/// Bytes of path and query at most. Generous beside the 8 KiB at which most servers stop.
pub const TARGET_BYTES_MAX: usize = 16 * 1024;

/// The target of one request, borrowed from its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'r> {
    /// What the request says of the server that it wants.
    pub naming: Naming<'r>,
    /// As it came; begins with `/`, or is `*`.
    pub path: &'r str,
    /// As it came, without its `?`; `Some("")` for a bare one.
    pub query: Option<&'r str>,
}

/// How a request names its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming<'r> {
    /// By `Host` or `:authority`: forbear itself, under whatever name the client knows it, or an
    /// upstream. `None` in HTTP/1.0 without the field.
    Host(Option<Authority<'r>>),
    /// By an absolute target that is not forbear's own address (RFC 9112 3.2.2).
    Origin(Scheme, Authority<'r>),
}

impl<'r> Target<'r> {
    /// Reads the target of a request that came in at the address `local`.
    ///
    /// # Errors
    ///
    /// `CONNECT` and `TRACE` are refused with 405; a missing, doubled or malformed `Host`, userinfo
    /// and any form but origin, absolute and `OPTIONS *` with 400; a long target with 414.
    pub fn parse(parts: &'r Parts, local: SocketAddr) -> Result<Self, Rejection> {
        refuse_methods(&parts.method)?;
        let host = host(&parts.headers, parts.version)?;
        let target = &parts.uri;
        let length = target.path().len() + target.query().map_or(0, |query| query.len() + 1);
        if length > TARGET_BYTES_MAX {
            let detail = format!("the target has {length} bytes; at most {TARGET_BYTES_MAX} fit");
            return Err(Rejection::new(Code::TooLarge, detail)
                .with_status(StatusCode::URI_TOO_LONG)
                .closing());
        }
        let path = target.path();
        let in_form = path.starts_with('/') || (path == "*" && parts.method == Method::OPTIONS);
        let naming = match (target.scheme_str(), target.authority()) {
            (None, None) if in_form => Naming::Host(host),
            (Some(scheme), Some(at)) if path.starts_with('/') => {
                absolute(scheme, at.as_str(), host, parts.version, local)?
            }
            (Some(_) | None, Some(_) | None) => return Err(Rejection::bad_request(
                "the target is neither a path (`/github/…`) nor a URL (`http://…`) nor `OPTIONS *`",
            )
            .closing()),
        };
        Ok(Self { naming, path, query: target.query() })
    }
}

/// `CONNECT` would let traffic through unseen, `TRACE` would echo credentials (RFC 9110 9.3.8).
fn refuse_methods(method: &Method) -> Result<(), Rejection> {
    let detail = match *method {
        Method::CONNECT => {
            "forbear opens no tunnels, since limits inside one cannot be seen: set the client's \
             base URL to this address and an upstream's prefix, such as \
             http://localhost:8080/<upstream>, or keep the proxy setting and write http:// URLs"
        }
        Method::TRACE => "forbear does not answer TRACE, which would echo credentials",
        _ => return Ok(()),
    };
    Err(Rejection::new(Code::BadRequest, detail)
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
        .closing())
}

/// The one `Host` of the request (RFC 9112 3.2: exactly one in HTTP/1.1, and valid).
fn host(headers: &HeaderMap, version: Version) -> Result<Option<Authority<'_>>, Rejection> {
    let bad = |detail: String| Rejection::bad_request(detail).closing();
    let mut fields = headers.get_all(header::HOST).iter();
    match (fields.next(), fields.next()) {
        (_, Some(_)) => Err(bad("more than one Host field; send exactly one".to_owned())),
        (None, None) if version == Version::HTTP_11 => {
            Err(bad("no Host field; HTTP/1.1 asks for exactly one".to_owned()))
        }
        (None, None) => Ok(None),
        (Some(field), None) => field
            .to_str()
            .ok()
            .and_then(Authority::parse)
            .map(Some)
            .ok_or_else(|| bad(not_a_host("Host", field.as_bytes()))),
    }
}

fn not_a_host(what: &str, found: &[u8]) -> String {
    format!(
        "{what} is `{}`, which is not a host name or address with an optional port",
        shown(found)
    )
}

/// The naming of a target with scheme and authority. In HTTP/2 every request has both, and they
/// mean what `Host` means in HTTP/1.1 (RFC 9113 8.3.1); there the two must not differ.
fn absolute<'r>(
    scheme: &str,
    at: &'r str,
    host: Option<Authority<'r>>,
    version: Version,
    local: SocketAddr,
) -> Result<Naming<'r>, Rejection> {
    let parsed = Authority::parse(at);
    let authority = parsed.ok_or_else(|| {
        Rejection::bad_request(not_a_host("the target's host", at.as_bytes())).closing()
    })?;
    let scheme = if scheme.eq_ignore_ascii_case("http") {
        Scheme::Http
    } else if scheme.eq_ignore_ascii_case("https") {
        Scheme::Https
    } else {
        let found = shown(scheme.as_bytes());
        let detail = format!("the target's scheme is `{found}`; only http and https are served");
        return Err(Rejection::bad_request(detail).closing());
    };
    if version >= Version::HTTP_2 {
        if host.is_some_and(|host| host != authority) {
            return Err(
                Rejection::bad_request(":authority and Host name different servers").closing()
            );
        }
        return Ok(Naming::Host(Some(authority)));
    }
    if authority.is_own(scheme, local) {
        return Ok(Naming::Host(Some(authority)));
    }
    Ok(Naming::Origin(scheme, authority))
}

/// Host and port as a client wrote them.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'r> {
    /// Without brackets and without a final dot; any case.
    pub host: &'r str,
    /// `None` if it goes without saying.
    pub port: Option<u16>,
    /// The host, if it is an address in its usual form. Not so `127.1` or `0x7f000001`: whoever
    /// writes loopback like that is up to something.
    address: Option<IpAddr>,
}

impl<'r> Authority<'r> {
    /// Reads `host[:port]`, stricter than RFC 3986: letters, digits, `.`, `-` and `_` make a name;
    /// userinfo, escapes and zones are refused.
    pub fn parse(text: &'r str) -> Option<Self> {
        let (host, port, address) = if let Some(bracketed) = text.strip_prefix('[') {
            let (host, port) = bracketed.split_once(']')?;
            (host, port, Some(IpAddr::V6(host.parse().ok()?)))
        } else {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            if !host.bytes().all(legal) {
                return None;
            }
            (host.strip_suffix('.').unwrap_or(host), port, host.parse().ok())
        };
        if host.is_empty() {
            return None;
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            // RFC 3986 3.2.3 allows a colon with nothing behind it.
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) | None => return None,
        };
        Some(Self { host, port, address })
    }

    /// The host, if it is an address in its usual form.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Whether it names `host`, which is in lower case and without brackets.
    pub fn is_host(&self, host: &str) -> bool {
        self.host.eq_ignore_ascii_case(host)
            || self.address.is_some_and(|address| host.parse() == Ok(address))
    }

    /// Whether it is the address at which the connection came in, or loopback at the same port.
    fn is_own(&self, scheme: Scheme, local: SocketAddr) -> bool {
        let port = self.port.unwrap_or(default_port(scheme));
        let host_is_own = self.is_host("localhost")
            || self.address.is_some_and(|address| {
                address.is_loopback() || address.to_canonical() == local.ip().to_canonical()
            });
        host_is_own && port == local.port()
    }
}

/// Names compare without regard to case (RFC 9110 4.2.3).
impl PartialEq for Authority<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port && self.is_host(other.host)
    }
}

impl Eq for Authority<'_> {}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn local() -> SocketAddr {
        "127.0.0.1:8080".parse().unwrap()
    }

    fn request(method: &str, target: &str, hosts: &[&str], version: Version) -> Parts {
        let mut builder = Request::builder().method(method).uri(target).version(version);
        for host in hosts {
            builder = builder.header("host", *host);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn status(method: &str, target: &str, hosts: &[&str]) -> u16 {
        let parts = request(method, target, hosts, Version::HTTP_11);
        Target::parse(&parts, local()).map_or_else(|refused| refused.status.as_u16(), |_| 200)
    }

    #[test]
    fn every_form_of_target_is_served_or_refused_by_its_rule() {
        for (method, target, expected) in [
            ("GET", "/github/x?y", 200),
            ("OPTIONS", "*", 200),
            ("GET", "*", 400),
            ("GET", "http://api.example/x", 200),
            ("GET", "HTTPS://api.example/x", 200),
            ("GET", "ftp://api.example/x", 400),
            ("GET", "http://user@api.example/x", 400),
            ("GET", "http://user:secret@api.example/x", 400),
            ("GET", "api.example:443", 400),
            ("CONNECT", "api.example:443", 405),
            ("CONNECT", "/x", 405),
            ("TRACE", "/github/x", 405),
        ] {
            assert_eq!(status(method, target, &["a"]), expected, "{method} {target}");
        }
    }

    #[test]
    fn a_connect_is_told_what_to_do_instead() {
        let parts = request("CONNECT", "a.example:443", &["a.example:443"], Version::HTTP_11);
        let refused = Target::parse(&parts, local()).unwrap_err();
        assert!(refused.detail.contains("base URL") && refused.close, "{}", refused.detail);
    }

    #[test]
    fn a_request_needs_exactly_one_valid_host() {
        for (hosts, expected) in [
            (&["localhost:8080"][..], 200),
            (&["EXAMPLE.com."], 200),
            (&["[::1]:8080"], 200),
            (&["forbear_proxy"], 200),
            (&["a:"], 200),
            (&[], 400),
            (&["a", "a"], 400),
            (&[""], 400),
            (&["."], 400),
            (&["a b"], 400),
            (&["a,b"], 400),
            (&["a/b"], 400),
            (&["http://a"], 400),
            (&["u@a"], 400),
            (&["a:b"], 400),
            (&["a:+1"], 400),
            (&["a:65536"], 400),
            (&["[::1"], 400),
            (&["[::1]x"], 400),
            (&["[1.2.3.4]"], 400),
            (&["::1"], 400),
            (&["a%00b"], 400),
        ] {
            assert_eq!(status("GET", "/x", hosts), expected, "{hosts:?}");
        }
        let old = request("GET", "/x", &[], Version::HTTP_10);
        assert_eq!(Target::parse(&old, local()).unwrap().naming, Naming::Host(None));
    }

    #[test]
    fn an_absolute_target_beats_host_and_forbears_own_address_means_no_origin() {
        for (target, own) in [
            ("http://127.0.0.1:8080/a/x", true),
            ("http://LOCALHOST:8080/a/x", true),
            ("http://[::1]:8080/a/x", true),
            ("http://127.0.0.1:9/a/x", false),
            ("http://localhost/a/x", false),
            ("http://127.1:8080/a/x", false),
            ("http://169.254.169.254/a/x", false),
            ("http://0x7f000001:8080/a/x", false),
        ] {
            let parts = request("GET", target, &["other.example"], Version::HTTP_11);
            let parsed = Target::parse(&parts, local()).unwrap();
            let is_own = match parsed.naming {
                Naming::Host(Some(at)) => at.host != "other.example",
                Naming::Host(None) | Naming::Origin(..) => false,
            };
            assert_eq!((is_own, parsed.path), (own, "/a/x"), "{target}");
        }
    }

    #[test]
    fn the_authority_of_http_2_is_read_like_host_and_must_not_differ_from_it() {
        let same = request("GET", "http://Api.example/x", &["api.example"], Version::HTTP_2);
        assert!(matches!(Target::parse(&same, local()).unwrap().naming, Naming::Host(Some(_))));
        let other = request("GET", "http://api.example/x", &["evil.example"], Version::HTTP_2);
        assert_eq!(Target::parse(&other, local()).unwrap_err().status, 400);
    }

    #[test]
    fn a_target_that_is_too_long_is_refused_with_414() {
        let fits = format!("/{}", "a".repeat(TARGET_BYTES_MAX - 1));
        assert_eq!(status("GET", &fits, &["a"]), 200);
        assert_eq!(status("GET", &format!("{fits}a"), &["a"]), 414);
        assert_eq!(status("GET", &format!("{fits}?"), &["a"]), 414);
    }
}
