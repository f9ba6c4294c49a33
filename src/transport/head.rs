//! The request head as each protocol wants it, and what a response head must not say.
//!
//! hyper frames a message by its body, but it respects `Content-Length` and `Transfer-Encoding`
//! that are already in a head. Here those fields are made from the body alone, so that what was
//! received can never decide how what is sent is read.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;

use super::http::HEAD_BYTES_MAX;

/// Fields that belong to an HTTP/1 connection and must not be in HTTP/2 (RFC 9113 8.2.2).
const CONNECTION_FIELDS: [HeaderName; 6] = [
    CONNECTION,
    UPGRADE,
    TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Whether the request asks for another protocol on its connection.
pub(super) fn wants_upgrade<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(UPGRADE)
}

/// Origin-form and framing for HTTP/1.1. Also accepts a request that was made ready for HTTP/2.
pub(super) fn for_http1<B: Body>(request: &mut Request<B>) {
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().entry(HOST).or_insert(host);
    }
    *request.uri_mut() = Uri::from(path_of(request.uri()));
    *request.version_mut() = Version::HTTP_11;
    frame(request);
    let is_of_unknown_length =
        !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    if is_of_unknown_length {
        // Said explicitly: hyper would send a GET or HEAD of unknown length without its body.
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Scheme, authority and path for the pseudo-fields of HTTP/2, without any trace of HTTP/1.
/// `fallback` is the authority of a request that has no usable `Host`.
pub(super) fn for_http2<B: Body>(request: &mut Request<B>, scheme: &Scheme, fallback: &Authority) {
    let host = request.headers_mut().remove(HOST);
    let authority = host
        .and_then(|host| Authority::try_from(host.as_bytes()).ok())
        .or_else(|| request.uri().authority().cloned())
        .unwrap_or_else(|| fallback.clone());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(authority);
    parts.path_and_query = Some(path_of(request.uri()));
    *request.uri_mut() =
        Uri::from_parts(parts).expect("scheme, authority and path together are a URI");
    *request.version_mut() = Version::HTTP_2;
    strip_connection_fields(request.headers_mut());
    frame(request);
}

/// What is wrong with a response head, or whether its connection may be used again.
pub(super) fn vet<B>(
    response: &mut Response<B>,
    asked_upgrade: bool,
) -> Result<bool, &'static str> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return if asked_upgrade { Ok(false) } else { Err("101 that nobody asked for") };
    }
    // hyper reads three digits of any kind (RFC 9110 15).
    if !(200..=599).contains(&response.status().as_u16()) {
        return Err("a status that no final response can have");
    }
    // hyper looks at its bound only while a head is incomplete, so one read can pass it.
    let field_bytes =
        |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    if response.headers().iter().map(field_bytes).sum::<usize>() > HEAD_BYTES_MAX {
        return Err("a head of more than 64 KiB");
    }
    // A peer of HTTP/1.0 would make hyper send requests of unknown length without their bodies.
    let mut is_reusable = response.version() != Version::HTTP_10;
    let headers = response.headers_mut();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || codings.next().is_some() {
            return Err("a transfer coding other than chunked");
        }
        // Both lengths at once: the chunks count, and the connection is not trusted any further
        // (RFC 9112 6.3).
        is_reusable &= headers.remove(CONTENT_LENGTH).is_none();
    }
    Ok(is_reusable)
}

/// The bytes as given. An absolute URI without a path means `/`.
fn path_of(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

fn frame<B: Body>(request: &mut Request<B>) {
    let length = request.body().size_hint().exact();
    let is_expected = [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
    let headers = request.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONTENT_LENGTH);
    // "0" is said where a body is usual (RFC 9110 8.6); some servers answer 411 otherwise.
    if let Some(length) = length.filter(|length| *length > 0 || is_expected) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

fn strip_connection_fields(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| *name != TE)
        .collect();
    for name in named.iter().chain(&CONNECTION_FIELDS) {
        headers.remove(name);
    }
    if headers.get_all(TE).iter().any(|value| value != "trailers") {
        headers.remove(TE);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    fn request(target: &str) -> Request<Full<Bytes>> {
        Request::post(target)
            .header("host", "api.example:8443")
            .header("connection", "x-hop, te")
            .header("x-hop", "1")
            .header("te", "trailers")
            .header("keep-alive", "timeout=5")
            .header("content-length", "999")
            .header("transfer-encoding", "gzip")
            .body(Full::from("four"))
            .unwrap()
    }

    #[test]
    fn path_and_query_survive_both_protocols_byte_for_byte() {
        let authority = Authority::from_static("fallback");
        for target in ["/", "/a%2Fb//c/../d;x?q=%20&&=?", "/?", "/a?b?c", "*", "/%e4%bd%a0"] {
            let mut there = request(target);
            for_http2(&mut there, &Scheme::HTTPS, &authority);
            assert_eq!(there.uri().path_and_query().unwrap().as_str(), target);
            for_http1(&mut there);
            assert_eq!(there.uri().to_string(), target);
        }
    }

    #[test]
    fn http2_gets_the_host_as_authority_and_nothing_that_belongs_to_a_connection() {
        let mut request = request("/x");

        for_http2(&mut request, &Scheme::HTTPS, &Authority::from_static("fallback"));

        assert_eq!(request.uri(), "https://api.example:8443/x");
        let left: Vec<_> =
            request.headers().iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(left, [("te", "trailers"), ("content-length", "4")]);
    }

    #[test]
    fn a_request_that_http2_did_not_take_gets_its_host_back() {
        let mut request = request("/x");
        for_http2(&mut request, &Scheme::HTTPS, &Authority::from_static("fallback"));

        for_http1(&mut request);

        assert_eq!(request.headers()["host"], "api.example:8443");
        assert_eq!(request.headers()["content-length"], "4");
    }

    #[test]
    fn a_response_is_only_trusted_as_far_as_its_framing_is_clear() {
        let check = |version, fields: &[(&str, &str)]| {
            let mut builder = Response::builder().version(version);
            for (name, value) in fields {
                builder = builder.header(*name, *value);
            }
            let mut response = builder.body(()).unwrap();
            let verdict = vet(&mut response, false).ok();
            (verdict, response.headers().contains_key(CONTENT_LENGTH))
        };
        let chunked = ("transfer-encoding", "Chunked");
        let length = ("content-length", "5");
        assert_eq!(check(Version::HTTP_11, &[length]), (Some(true), true));
        assert_eq!(check(Version::HTTP_11, &[chunked]), (Some(true), false));
        assert_eq!(check(Version::HTTP_10, &[length]), (Some(false), true));
        assert_eq!(check(Version::HTTP_11, &[chunked, length]), (Some(false), false));
        assert_eq!(check(Version::HTTP_11, &[chunked, chunked]).0, None);
        assert_eq!(check(Version::HTTP_11, &[("transfer-encoding", "gzip, chunked")]).0, None);
        assert_eq!(check(Version::HTTP_11, &[("transfer-encoding", "gzip")]).0, None);
    }
}
