//! The gate for HTTP/2 requests: what h2 and hyper leave unchecked.
//!
//! h2 itself refuses malformed frames, upper-case and connection-specific fields, misplaced
//! pseudo-fields, and content that differs from `content-length`. What remains are the rules that bind
//! a request together, and those by which it can be written again as HTTP/1.1.

use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderValue, TE};
use http::{HeaderMap, Method, Request};
use hyper::body::Incoming;

use super::head::{FIELDS_MAX, fields_too_large, parse_length};
use super::target::{self, TARGET_MAX};
use super::{Intake, Violation};

/// Joins what HTTP/2 splits, and refuses what must not go on.
pub(super) fn admit(mut request: Request<Incoming>) -> Intake {
    match check(&request) {
        Ok(()) => {
            join_cookies(request.headers_mut());
            Intake::Request(request)
        }
        Err(violation) => Intake::Refused(violation),
    }
}

fn check<B>(request: &Request<B>) -> Result<(), Violation> {
    let (uri, headers) = (request.uri(), request.headers());
    if request.method() == Method::CONNECT {
        return Err(target::connect_refused());
    }
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    if path.len() > TARGET_MAX {
        return Err(target::target_too_long());
    }
    if !(path == "*" && request.method() == Method::OPTIONS) {
        if !path.starts_with('/') {
            return Err(Violation::bad(":path: it must begin with `/`"));
        }
        target::check_path_and_query(path.as_bytes())?;
    }
    if headers.len() > FIELDS_MAX {
        return Err(fields_too_large(format!(
            "fields: found {}, the limit is {FIELDS_MAX}; send fewer",
            headers.len()
        )));
    }
    check_authority(uri.authority().map(http::uri::Authority::as_str), headers)?;
    check_fields(headers)
}

/// RFC 9113 section 8.3.1: one authority, told once or twice alike.
fn check_authority(authority: Option<&str>, headers: &HeaderMap) -> Result<(), Violation> {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Violation::bad("host: found more than one; send :authority alone"));
    }
    let host = host.map(HeaderValue::as_bytes);
    let found = match (authority.map(str::as_bytes), host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(Violation::bad("host: it differs from :authority; send :authority alone"));
        }
        (Some(found), _) | (None, Some(found)) => found,
        (None, None) => return Err(Violation::bad(":authority: it is missing; send it")),
    };
    if target::is_authority(found) {
        Ok(())
    } else {
        Err(Violation::bad(":authority: it is no host and port; send for example `localhost:8080`"))
    }
}

fn check_fields(headers: &HeaderMap) -> Result<(), Violation> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        parse_length(length.as_bytes())?;
    }
    if lengths.next().is_some() {
        return Err(Violation::bad("content-length: found more than one; send it once"));
    }
    if headers.get_all(TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return Err(Violation::bad("te: only `trailers` is allowed in HTTP/2; leave the rest out"));
    }
    // RFC 9113 section 8.2.1. HTTP/1.1 would drop the space in silence.
    match headers.iter().find(|(_, value)| value.as_bytes().trim_ascii() != value.as_bytes()) {
        None => Ok(()),
        Some((name, _)) => Err(Violation::bad(format!(
            "{name}: its value begins or ends with white space; remove it"
        ))),
    }
}

/// RFC 9113 section 8.2.3: the crumbs of a cookie are one field everywhere else.
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return;
    }
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]));
    let mut joined = joined.expect("legal values joined by legal bytes are a legal value");
    joined.set_sensitive(true);
    headers.insert(COOKIE, joined);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(authority: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get(format!("http://{authority}/x?y=1"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn what_binds_a_request_together_is_checked() {
        for (authority, fields, fits) in [
            ("api:80", &[][..], true),
            ("api:80", &[("host", "API:80")], true),
            ("api:80", &[("host", "other")], false),
            ("api:80", &[("host", "api:80"), ("host", "api:80")], false),
            ("user@api", &[], false),
            ("api", &[("te", "trailers")], true),
            ("api", &[("te", "gzip")], false),
            ("api", &[("content-length", "5")], true),
            ("api", &[("content-length", "5"), ("content-length", "5")], false),
            ("api", &[("content-length", "+5")], false),
            ("api", &[("x", "y ")], false),
        ] {
            let verdict = check(&request(authority, fields));
            assert_eq!(verdict.is_ok(), fits, "{authority} {fields:?}: {verdict:?}");
        }
    }

    #[test]
    fn a_request_without_any_authority_is_refused() {
        let request = Request::get("/x").body(()).unwrap();
        assert!(check(&request).is_err());
    }

    #[test]
    fn cookie_crumbs_become_one_field_in_their_order() {
        let mut headers = request("api", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]);
        join_cookies(headers.headers_mut());
        let cookies: Vec<_> = headers.headers().get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }
}
