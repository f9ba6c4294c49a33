//! Where things are: upstream addresses, path prefixes, host names, route patterns, listeners.
//!
//! Whatever could make forbear and an upstream disagree on which resource is meant (dot segments,
//! empty segments, encoded separators) is refused here, once, so that the data path may compare
//! and join paths as plain text.

use std::net::SocketAddr;

use super::problem::Fault;
use super::settings::{Origin, RouteMatch, Scheme};

/// The `url` of an upstream: where it is, and what stands before every path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) origin: Origin,
    /// Without a final slash; may be empty.
    pub(super) base_path: String,
}

impl Url {
    /// Reads `https://host:port/base`. No user info, query or fragment.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let example = r#"Write it like "https://api.example.com"."#;
        if text.is_empty() {
            return Err(Fault::new("it is empty", example));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            Fault::new(
                "the scheme is missing",
                r#"Write it with "https://" or "http://" before it."#,
            )
        })?;
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Scheme::Http, 80),
            "https" => (Scheme::Https, 443),
            _ => return Err(Fault::new("only http and https are spoken", example)),
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            let fix = "Take it out, and name the secret with credential = { file = \"…\" } or { env = \"…\" }.";
            return Err(Fault::new("an address must not hold a user name or password", fix));
        }
        if path.contains('?') {
            return Err(Fault::new(
                "a query cannot be put before a path",
                "Take out everything from the ? on.",
            ));
        }
        if path.contains('#') {
            return Err(Fault::new(
                "a fragment is never sent",
                "Take out everything from the # on.",
            ));
        }
        let (host, port) = split_port(authority)?;
        let host = host_name(host)?;
        let base_path = path.strip_suffix('/').unwrap_or(path);
        check_path(base_path, Percent::Allowed)?;
        let origin = Origin { scheme, host, port: port.unwrap_or(default_port) };
        Ok(Self { origin, base_path: base_path.to_owned() })
    }

    /// As it would be typed.
    pub(super) fn print(&self) -> String {
        format!("{}{}", print_origin(&self.origin), self.base_path)
    }
}

/// `https://host`, with the port where it is not the scheme's own.
pub(super) fn print_origin(origin: &Origin) -> String {
    let (scheme, default_port) = match origin.scheme {
        Scheme::Http => ("http", 80),
        Scheme::Https => ("https", 443),
    };
    let host =
        if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    let port =
        if origin.port == default_port { String::new() } else { format!(":{}", origin.port) };
    format!("{scheme}://{host}{port}")
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), Fault> {
    let colon =
        authority.rfind(':').filter(|colon| !authority.get(*colon..).unwrap_or("").contains(']'));
    let Some(colon) = colon else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at(colon);
    let digits = port.trim_start_matches(':');
    let number =
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u16>().ok()).flatten();
    match number {
        Some(port) if port > 0 => Ok((host, Some(port))),
        Some(_) | None => Err(Fault::new(
            "its port is not a number from 1 to 65535",
            "Correct the port, or leave it out.",
        )),
    }
}

/// A DNS name in lower case, an IPv4 address, or an IPv6 address without its brackets.
pub(super) fn host_name(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(Fault::new(
            "the host is missing",
            r#"Write it like "https://api.example.com"."#,
        ));
    }
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: std::net::Ipv6Addr = address
            .parse()
            .map_err(|_| Fault::new("that is no IPv6 address", "Write it like [2001:db8::1]."))?;
        return Ok(address.to_string());
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let labels_filled =
        text.strip_suffix('.').unwrap_or(text).split('.').all(|label| !label.is_empty());
    if !text.bytes().all(legal) || !labels_filled || text.len() > 253 {
        let fix =
            "Host names have letters, digits, hyphens and dots; write others in their xn-- form.";
        return Err(Fault::new("that is no host name", fix));
    }
    Ok(text.to_ascii_lowercase())
}

/// A name for `hosts`: as [`host_name`], and without scheme, port or path.
pub(super) fn listed_host(text: &str) -> Result<String, Fault> {
    let has_port = !text.starts_with('[') && text.contains(':') || text.contains("]:");
    if text.contains('/') || has_port {
        return Err(Fault::new(
            "hosts are compared without scheme, port and path",
            "Write the name alone.",
        ));
    }
    host_name(text)
}

/// A path prefix: begins with a slash, has no final one, and nothing in it can be read two ways.
pub(super) fn prefix(text: &str) -> Result<String, Fault> {
    if !text.starts_with('/') {
        return Err(Fault::new(
            "a prefix begins with a slash",
            format!("Write {:?}.", format!("/{text}")),
        ));
    }
    if text.len() > 1 && text.ends_with('/') {
        let without = text.trim_end_matches('/');
        let shorter = if without.is_empty() { "/" } else { without };
        return Err(Fault::new(
            "a prefix is matched by whole segments and has no final slash",
            format!("Write {shorter:?}."),
        ));
    }
    if text != "/" {
        check_path(text, Percent::Refused)?;
    }
    Ok(text.to_owned())
}

/// Whether percent-encoded characters may stand in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Percent {
    Allowed,
    Refused,
}

fn check_path(path: &str, percent: Percent) -> Result<(), Fault> {
    for segment in path.split('/').skip(1) {
        if segment.is_empty() {
            return Err(Fault::new(
                "an empty path segment (//) can be read two ways",
                "Write single slashes.",
            ));
        }
        check_segment(segment, percent)?;
    }
    Ok(())
}

fn check_segment(segment: &str, percent: Percent) -> Result<(), Fault> {
    let lower = segment.to_ascii_lowercase();
    if matches!(segment, "." | "..")
        || lower.contains("%2e")
        || lower.contains("%2f")
        || lower.contains("%5c")
    {
        let why = "dot segments and encoded dots or slashes can be read two ways";
        return Err(Fault::new(why, "Write the path that they lead to."));
    }
    if percent == Percent::Refused && segment.contains('%') {
        return Err(Fault::new(
            "a prefix is compared letter by letter, so nothing in it may be encoded",
            "Write it without %.",
        ));
    }
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        let legal = match byte {
            b'%' => [rest.next(), rest.next()]
                .iter()
                .all(|hex| hex.is_some_and(|hex| hex.is_ascii_hexdigit())),
            other => other.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&other),
        };
        if !legal {
            return Err(Fault::new(
                "it has a character that cannot stand in a path",
                "Take it out, or percent-encode it where that is allowed.",
            ));
        }
    }
    Ok(())
}

/// `GET /search/*`: an optional method, and a path pattern.
pub(super) fn route_match(text: &str) -> Result<RouteMatch, Fault> {
    let example = r#"Write it like "GET /search/*" or "/files/**"."#;
    let (method, path) = match text.split_once(' ') {
        Some((method, path)) => (Some(method), path),
        None => (None, text),
    };
    if let Some(method) = method {
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') {
            return Err(Fault::new(
                "that is no method and path with one space between them",
                example,
            ));
        }
        if method.bytes().any(|b| b.is_ascii_lowercase()) {
            let upper = method.to_ascii_uppercase();
            return Err(Fault::new("methods are upper case", format!("Write \"{upper} {path}\".")));
        }
    }
    if !path.starts_with('/') {
        return Err(Fault::new("its path does not begin with a slash", example));
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        match *segment {
            "" if last => {}
            "" => {
                return Err(Fault::new(
                    "an empty path segment (//) can be read two ways",
                    "Write single slashes.",
                ));
            }
            "**" if !last => {
                return Err(Fault::new(
                    "** matches the rest of a path and can only stand at its end",
                    "Write * for one segment.",
                ));
            }
            "*" | "**" => {}
            other if other.contains('*') => {
                return Err(Fault::new(
                    "* stands for a whole segment, not for a part of one",
                    example,
                ));
            }
            other => check_segment(other, Percent::Allowed)?,
        }
    }
    Ok(RouteMatch { method: method.map(str::to_owned), path: path.to_owned() })
}

/// A listening address: `127.0.0.1:8080`, `[::1]:8080`.
pub(super) fn listener(text: &str) -> Result<SocketAddr, Fault> {
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().filter(|port| port.parse::<u16>().is_ok()).unwrap_or("8080");
        let fix = format!(r#"Write "127.0.0.1:{port}" for this machine alone, or "0.0.0.0:{port}" for everybody who can reach it."#);
        let is_large = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u64>().is_ok_and(|it| it > 65_535));
        let why = if is_large { "ports end at 65535" } else { "a listener needs an IP address and a port" };
        Fault::new(why, fix)
    })
}
