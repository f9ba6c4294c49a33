//! What passes the request gate, and what the head of an attempt looks like.

use std::str::FromStr;

use proptest::prelude::*;

use super::*;
use crate::config::secret::Secret;
use crate::config::settings::CredentialConfig;
use crate::gateway::route::tests::upstream;

fn check(parts: &Parts) -> Result<(), Rejection> {
    super::check(parts, Survey::of(&parts.headers))
}

fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    super::upgrade(parts, Survey::of(&parts.headers))
}

fn upstream_request(
    parts: &Parts,
    path: &str,
    query: Option<&str>,
    upstream: &UpstreamHead,
) -> Result<Request<()>, Rejection> {
    super::upstream_request(parts, Survey::of(&parts.headers), path, query, upstream)
}

fn github() -> UpstreamHead {
    let mut config = upstream("github", "https://api.github.com/v3", &[]);
    config.credential = Some(CredentialConfig {
        header: "authorization".to_owned(),
        value: Secret::new("Bearer s3cret"),
        prefix: "Bearer ".to_owned(),
        file: None,
        source: "env GITHUB_TOKEN".to_owned(),
    });
    UpstreamHead::new(&config).unwrap()
}

fn plain() -> UpstreamHead {
    UpstreamHead::new(&upstream("plain", "http://[::1]:8000", &[])).unwrap()
}

fn request(version: Version, fields: &[(&str, &str)]) -> Parts {
    let mut builder = Request::builder().method("POST").uri("/x").version(version);
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

/// The outgoing fields as lines, in their order.
fn sent(upstream: &UpstreamHead, version: Version, fields: &[(&str, &str)]) -> Vec<String> {
    let parts = request(version, fields);
    lines(upstream_request(&parts, "/x", None, upstream).unwrap().headers())
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect()
}

fn status(version: Version, fields: &[(&str, &str)]) -> u16 {
    check(&request(version, fields)).map_or_else(|refused| refused.status.as_u16(), |()| 200)
}

#[test]
fn framing_that_two_parsers_could_read_differently_is_refused() {
    let (old, new) = (Version::HTTP_10, Version::HTTP_11);
    for (version, fields, expected) in [
        (new, &[][..], 200),
        (new, &[("content-length", "5")], 200),
        (new, &[("transfer-encoding", "Chunked")], 200),
        (new, &[("transfer-encoding", "gzip, chunked")], 501),
        (new, &[("transfer-encoding", "chunked, chunked")], 501),
        (new, &[("transfer-encoding", "xchunked")], 501),
        (new, &[("transfer-encoding", "chunked"), ("transfer-encoding", "identity")], 400),
        (new, &[("transfer-encoding", "chunked"), ("content-length", "5")], 400),
        (old, &[("transfer-encoding", "chunked")], 400),
        (Version::HTTP_2, &[("transfer-encoding", "chunked")], 400),
        (new, &[("content-length", "5"), ("content-length", "5")], 400),
        (new, &[("content-length", "5"), ("content-length", "6")], 400),
        (new, &[("content-length", "+5")], 400),
        (new, &[("content-length", "5, 6")], 400),
        (new, &[("content-length", "")], 400),
        (new, &[("content-length", "99999999999999999999")], 400),
    ] {
        assert_eq!(status(version, fields), expected, "{version:?} {fields:?}");
        let refused = check(&request(version, fields)).err();
        assert!(refused.is_none_or(|refused| refused.close), "{fields:?}");
    }
}

#[test]
fn loops_unknown_expectations_and_oversized_heads_are_refused() {
    let new = Version::HTTP_11;
    assert_eq!(status(new, &[("expect", "100-Continue")]), 200);
    assert_eq!(status(new, &[("expect", "200-maybe")]), 417);
    assert_eq!(status(new, &[("via", "1.1 forbearance, 1.0 proxy (1.1 x)")]), 200);
    assert_eq!(status(new, &[("via", "1.0 fred"), ("via", "1.1 a,  1.1 Forbear (x)")]), 508);
    assert_eq!(status(new, &[("x-a", "1"); FIELDS_MAX]), 200);
    assert_eq!(status(new, &[("x-a", "1"); FIELDS_MAX + 1]), 431);
}

#[test]
fn an_options_request_that_may_go_no_further_does_not() {
    let mut parts = request(Version::HTTP_11, &[("max-forwards", "0")]);
    assert!(check(&parts).is_ok(), "the field means nothing for POST");
    parts.method = Method::OPTIONS;
    assert!(check(&parts).is_err());
    parts.headers.insert(header::MAX_FORWARDS, HeaderValue::from_static("3"));
    let request = upstream_request(&parts, "/x", None, &plain()).unwrap();
    assert_eq!(request.headers()[header::MAX_FORWARDS], "2");
}

#[test]
fn only_what_is_meant_for_the_upstream_is_sent() {
    let fields = [
        ("host", "localhost:8080"),
        ("user-agent", "curl/8"),
        ("connection", "Keep-Alive, X-Hop, Authorization, Idempotency-Key"),
        ("x-hop", "gone"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic eA=="),
        ("te", "trailers"),
        ("trailer", "x-sum"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABk"),
        ("expect", "100-continue"),
        ("content-length", "3"),
        ("forbear-key", "ingestion"),
        ("forbear-made-up", "x"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-original-url", "/admin"),
        ("authorization", "Bearer mine"),
        ("idempotency-key", "k1"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-many", "1"),
        ("x-many", "2"),
        ("via", "1.0 fred"),
    ];
    assert_eq!(
        sent(&plain(), Version::HTTP_11, &fields),
        [
            "host: [::1]:8000",
            "user-agent: curl/8",
            "x-forwarded-for: 10.0.0.1",
            "x-original-url: /admin",
            "authorization: Bearer mine",
            "idempotency-key: k1",
            "cookie: a=1; b=2",
            "x-many: 1",
            "x-many: 2",
            "via: 1.0 fred",
            "via: 1.1 forbear",
        ]
    );
}

#[test]
fn an_injected_credential_replaces_the_clients_own_and_prints_as_a_secret() {
    for connection in ["close", "authorization", "Authorization, close"] {
        let fields =
            [("connection", connection), ("authorization", "Bearer a"), ("authorization", "b")];
        assert_eq!(
            sent(&github(), Version::HTTP_11, &fields),
            ["host: api.github.com", "authorization: Bearer s3cret", "via: 1.1 forbear",]
        );
    }
    let request = upstream_request(&request(Version::HTTP_11, &[]), "/x", None, &github()).unwrap();
    assert!(!format!("{:?} {request:?}", github()).contains("s3cret"));
}

#[test]
fn the_wish_to_switch_protocols_is_passed_on_only_where_the_bytes_stay_in_sight() {
    for (fields, expected) in [
        (&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")][..], true),
        (&[("connection", "upgrade"), ("upgrade", "spdy/3.1")], true),
        (&[("upgrade", "websocket")], false),
        (&[("connection", "upgrade")], false),
        (&[("connection", "upgrade"), ("upgrade", "h2c")], false),
        (&[("connection", "upgrade"), ("upgrade", "H2C")], false),
        (&[("connection", "upgrade"), ("upgrade", "HTTP/2.0")], false),
        (&[("connection", "upgrade"), ("upgrade", "TLS/1.3")], false),
        (&[("connection", "upgrade"), ("upgrade", "websocket, h2c")], false),
        (&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")], false),
        (&[("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "9")], false),
        (
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("transfer-encoding", "chunked"),
            ],
            false,
        ),
    ] {
        let sent = sent(&plain(), Version::HTTP_11, fields);
        let asked = sent.iter().any(|line| line == "connection: upgrade")
            && sent.iter().any(|line| line.starts_with("upgrade: "));
        let silent = !sent.iter().any(|line| line.contains("upgrade"));
        assert_eq!((asked, silent), (expected, !expected), "{fields:?}");
        assert!(upgrade(&request(Version::HTTP_10, fields)).is_none());
    }
}

#[test]
fn trailers_stay_announced_where_the_connection_cannot_take_them_for_its_own() {
    let fields = [("te", "trailers")];
    assert!(sent(&plain(), Version::HTTP_2, &fields).contains(&"te: trailers".to_owned()));
    assert!(sent(&plain(), Version::HTTP_2, &fields).contains(&"via: 2.0 forbear".to_owned()));
    assert!(!sent(&plain(), Version::HTTP_11, &fields).contains(&"te: trailers".to_owned()));
    assert!(!sent(&plain(), Version::HTTP_2, &[("te", "gzip")]).iter().any(|l| l.contains("gzip")));
}

#[test]
fn the_target_is_base_path_and_path_and_query_byte_for_byte() {
    let parts = request(Version::HTTP_11, &[]);
    for (base, path, query, expected) in [
        ("", "", None, "/"),
        ("", "", Some(""), "/?"),
        ("", "/", None, "/"),
        ("/graphql", "", None, "/graphql"),
        ("/graphql", "/", None, "/graphql/"),
        ("/v3", "/a%2fB//;c=%zz", Some("q=%2F&&x=?/../%"), "/v3/a%2fB//;c=%zz?q=%2F&&x=?/../%"),
        ("/v3", "/\u{fc}", Some("\u{e4}"), "/v3/\u{fc}?\u{e4}"),
    ] {
        let mut config = upstream("a", "http://a", &[]);
        config.base_path = base.to_owned();
        let upstream = UpstreamHead::new(&config).unwrap();
        let request = upstream_request(&parts, path, query, &upstream).unwrap();
        assert_eq!(request.uri().to_string(), expected);
    }
    let long = format!("/{}", "a".repeat(70_000));
    let refused = upstream_request(&parts, &long, None, &plain()).unwrap_err();
    assert_eq!(refused.status, 414);
}

#[test]
fn no_legal_byte_is_changed_on_its_way_into_the_target() {
    let mut parts = request(Version::HTTP_11, &[]);
    // A fragment is no part of a target.
    for byte in (b'!'..=b'~').map(char::from).filter(|byte| *byte != '#') {
        let texts = [format!("/{byte}{byte}"), format!("/a?{byte}{byte}")];
        for (text, uri) in texts.iter().flat_map(|text| text.parse().map(|uri| (text, uri))) {
            parts.uri = uri;
            let (path, query) = (parts.uri.path(), parts.uri.query());
            let request = upstream_request(&parts, path, query, &github()).unwrap();
            assert_eq!(request.uri().to_string(), format!("/v3{text}"));
        }
    }
}

fn field() -> impl Strategy<Value = (String, String)> {
    let name = prop::sample::select(vec![
        "connection",
        "te",
        "upgrade",
        "keep-alive",
        "transfer-encoding",
        "content-length",
        "host",
        "authorization",
        "cookie",
        "forbear-key",
        "proxy-authorization",
        "x-a",
        "x-b",
        "trailer",
        "expect",
        "proxy-connection",
        "accept",
        "http2-settings",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "x-a",
            "X-B, close",
            "upgrade",
            "te, x-a",
            "host",
            "authorization",
            "websocket",
            "h2c",
            "trailers",
            "chunked",
            "keep-alive, , X-A",
            "via",
            "accept",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,12}",
    ];
    (name.prop_map(str::to_owned), value)
}

proptest! {
    #[test]
    fn every_legal_target_reaches_the_upstream_unchanged(
        path in "/[!$-;=@-_a-z|~\"{}%\u{e4}\u{20ac}]{0,60}", query in prop::option::of("[!$-;=?-~%\u{e4}]{0,60}"),
    ) {
        let text = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
        let uri = Uri::from_str(&text).unwrap();
        let mut parts = request(Version::HTTP_11, &[]);
        parts.uri = uri;
        let request =
            upstream_request(&parts, parts.uri.path(), parts.uri.query(), &github()).unwrap();
        prop_assert_eq!(request.uri().to_string(), format!("/v3{text}"));
    }

    #[test]
    fn the_gate_leaves_nothing_of_the_connection_and_a_second_pass_changes_nothing(
        fields in prop::collection::vec(field(), 0..12),
    ) {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let incoming = request(Version::HTTP_11, &fields);
        let mut once = upstream_request(&incoming, "/x", None, &github()).unwrap().into_parts().0;
        let upgrades = once.headers.contains_key("upgrade");
        for (name, value) in &once.headers {
            prop_assert!(!is_dropped(name) || name == "host" || (upgrades && (name == "connection" || name == "upgrade")));
            prop_assert!(name != "connection" || value == "upgrade");
        }
        for named in Nominated::of(&incoming.headers).names() {
            prop_assert!(!once.headers.contains_key(&named) || named == "via" || named == "authorization");
        }
        let twice = upstream_request(&once, "/x", None, &github()).unwrap().into_parts().0;
        prop_assert_eq!(twice.headers.get_all("via").iter().count(), 1 + once.headers.get_all("via").iter().count());
        once.headers.remove("via");
        let mut twice = twice.headers;
        twice.remove("via");
        prop_assert_eq!(once.headers, twice);
    }
}
