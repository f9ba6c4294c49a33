//! The request line of HTTP/1.1, and the authority in `Host`.
//!
//! What passes here is kept by `http::Uri` byte for byte; what that type would refuse or quietly cut
//! (a fragment) is refused here, with a sentence. Which resource a target means is not decided here.

use http::StatusCode;

use super::Violation;
use super::fields::{is_token, shown};
use crate::proxy::reject::Code;

/// Longest request target: more than any API documents, far below what a head may have.
pub(super) const TARGET_MAX: usize = 16 * 1024;

/// Longest method; the longest one registered (`UPDATEREDIRECTREF`) has 17 letters.
const METHOD_MAX: usize = 32;

/// Longest request line: the two above, two spaces, `HTTP/1.1`, and some room so that a target which
/// is only just too long is told from garbage.
pub(super) const REQUEST_LINE_MAX: usize = METHOD_MAX + TARGET_MAX + 64;

/// The two versions whose messages look like this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Version {
    /// No chunked coding, no duty to send `Host`.
    Http10,
    /// The usual one.
    #[default]
    Http11,
}

/// Checks `METHOD SP target SP HTTP/1.x`.
pub(super) fn request_line(line: &[u8]) -> Result<Version, Violation> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(Violation::bad(
            "request line: it has fewer than three parts; write `METHOD target HTTP/1.1`",
        ));
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(Violation::bad(
            "method: it is empty or not a token; write for example `GET`, followed by one space",
        ));
    }
    let version = check_version(version)?;
    if method.len() > METHOD_MAX {
        return Err(Violation::new(
            StatusCode::NOT_IMPLEMENTED,
            Code::BadRequest,
            format!("method: it has {} letters, the limit is {METHOD_MAX}", method.len()),
        ));
    }
    if method == b"CONNECT" {
        return Err(connect_refused());
    }
    check_target(method, target)?;
    Ok(version)
}

/// One sentence for both protocols: forbear is no tunnel.
pub(super) fn connect_refused() -> Violation {
    Violation::new(
        StatusCode::NOT_IMPLEMENTED,
        Code::BadRequest,
        "method: CONNECT is not offered, because forbear must see the requests; set the client's base \
         URL to forbear's address followed by `/<upstream>` instead of an https proxy",
    )
}

pub(super) fn target_too_long() -> Violation {
    Violation::too_large(
        StatusCode::URI_TOO_LONG,
        format!("request target: longer than {TARGET_MAX} bytes; send the data in a body"),
    )
}

fn check_version(version: &[u8]) -> Result<Version, Violation> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Violation::new(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                Code::BadRequest,
                format!("version: found `{}`; use HTTP/1.1 or HTTP/2", shown(version)),
            ))
        }
        _ => Err(Violation::bad(
            "request line: it does not end with one space and `HTTP/1.1`; percent-encode spaces in the \
             target, and put nothing behind the version",
        )),
    }
}

fn check_target(method: &[u8], target: &[u8]) -> Result<(), Violation> {
    if target.len() > TARGET_MAX {
        return Err(target_too_long());
    }
    match target {
        [b'/', ..] => check_path_and_query(target),
        b"*" if method == b"OPTIONS" => Ok(()),
        _ => check_absolute(target),
    }
}

/// Origin form, RFC 9112 section 3.2.1.
pub(super) fn check_path_and_query(target: &[u8]) -> Result<(), Violation> {
    let query_from = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(query_from);
    // What `http::Uri` refuses or cuts off, and the backslash that others read as a slash.
    let refused_in_path = |byte: &&u8| !byte.is_ascii_graphic() || b"#<>\\^`".contains(byte);
    let refused_in_query = |byte: &&u8| !byte.is_ascii_graphic() || b"\"#<>".contains(byte);
    let found = path.iter().find(refused_in_path).or_else(|| query.iter().find(refused_in_query));
    match found {
        None => Ok(()),
        Some(byte) => Err(Violation::bad(format!(
            "request target: found the byte 0x{byte:02x}, which no target may contain; \
             percent-encode it as %{byte:02X}"
        ))),
    }
}

/// Absolute form, RFC 9112 section 3.2.2; whether its origin is served is decided by routing.
fn check_absolute(target: &[u8]) -> Result<(), Violation> {
    let refused = || {
        Violation::bad(
            "request target: it is neither a path that begins with `/` nor the URL of a configured \
             upstream; write the path",
        )
    };
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    });
    let rest = rest.ok_or_else(refused)?;
    let path_from = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_from);
    if !is_authority(authority) || http::Uri::try_from(target).is_err() {
        return Err(refused());
    }
    check_path_and_query(path)
}

/// `Host` of RFC 9110 section 7.2, not empty: a name, an IPv4 address or an IPv6 address in brackets,
/// and a port. User information has no place in it.
pub(super) fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !value.ends_with(b"]") => {
            let (host, port) = value.split_at(colon);
            (host, port.get(1..))
        }
        Some(_) | None => (value, None),
    };
    let port_fits = port.is_none_or(|digits| {
        !digits.is_empty()
            && digits.iter().all(u8::is_ascii_digit)
            && str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok())
    });
    let host_fits = match host {
        [b'[', address @ .., b']'] => {
            str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
        }
        name => {
            !name.is_empty()
                && name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(b))
        }
    };
    port_fits && host_fits
}
