//! Pages, redirects and sessions: whoever follows an address in an answer stays behind forbear, and
//! bodies without one arrive as they were sent.

use std::io::Read;
use std::net::SocketAddr;

use forbear::demo::script::Step;
use http::{HeaderName, HeaderValue};

use crate::support::forbear::Forbear;
use crate::support::raw::{RawClient, RawResponse};
use crate::support::world::{World, request};

/// Pages that come in pieces, late or not at all.
mod pieces;

const PAGES: usize = 50;
const JSON: (&str, &str) = ("content-type", "application/json");

fn step(status: u16, fields: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Step {
    let fields = fields.iter().map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    });
    Step::Status(status, fields.collect(), body.into().into())
}

fn gzip(plain: impl AsRef<[u8]>) -> Vec<u8> {
    let mut packed = Vec::new();
    let level = flate2::Compression::default();
    flate2::read::GzEncoder::new(plain.as_ref(), level).read_to_end(&mut packed).unwrap();
    packed
}

/// Asks for a URL as a client without a proxy setting does: at the server that it names.
async fn follow(url: &str) -> RawResponse {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url}"));
    let (at, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address: SocketAddr = at.parse().unwrap();
    let bytes = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    RawClient::connect(address).await.ask(bytes).await
}

/// Follows to the last page, by whatever names the next one; all requests must come by forbear.
async fn walk(world: &World, first: &str, next: impl Fn(&RawResponse) -> Option<String>) {
    let mut url = world.forbear.url(first);
    for page in 1..=PAGES {
        assert!(url.starts_with(&world.forbear.url("/api/")), "page {page} is at {url}");
        let response = follow(&url).await;
        assert_eq!(response.status, 200, "{}", response.head);
        match next(&response) {
            Some(next) => url = next,
            None => assert_eq!(page, PAGES),
        }
    }
    let log = world.api.log();
    assert_eq!(log.len(), PAGES);
    assert!(
        log.iter().all(|record| record.field("via") == Some("1.1 forbear")),
        "one came directly"
    );
}

fn counted(forbear: &Forbear, series: &str) -> u64 {
    let metrics = forbear.metrics();
    let line = metrics.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("{series} is not in\n{metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn rewritten(forbear: &Forbear, place: &str) -> u64 {
    counted(forbear, &format!(r#"forbear_links_rewritten_total{{upstream="api",where="{place}"}}"#))
}

fn untouched(forbear: &Forbear, reason: &str) -> u64 {
    let labels = format!(r#"{{reason="{reason}",upstream="api"}}"#);
    counted(forbear, &format!("forbear_links_untouched_total{labels}"))
}

#[tokio::test]
async fn fifty_pages_by_link_fields_all_come_through_forbear() {
    let world = World::calm("").await;
    for page in 1..=PAGES {
        let base = world.api.url();
        let mut link = format!(r#"<{base}/p/1>; rel="first"; title="a, <b>""#);
        if page < PAGES {
            link += &format!(r#", <{base}/p/{}?per_page=100>; rel="next""#, page + 1);
        }
        world.api.script(&format!("/p/{page}"), [step(200, &[JSON, ("link", &link)], "[]")]);
    }
    walk(&world, "/api/p/1", |response| {
        let link = response.field("link").unwrap();
        let next = link.split(", ").find(|member| member.ends_with("rel=\"next\""))?;
        Some(next.split(['<', '>']).nth(1)?.to_owned())
    })
    .await;
    assert_eq!(rewritten(&world.forbear, "link"), 2 * PAGES as u64 - 1);
}

#[tokio::test]
async fn fifty_pages_by_a_url_in_the_body_all_come_through_forbear_packed_or_not() {
    for packed in [false, true] {
        let world = World::calm("profile = \"zendesk\"\n").await;
        for page in 1..=PAGES {
            let next = match page {
                PAGES => "null".to_owned(),
                _ => format!(r#""{}\/p\/{}?page[size]=100""#, world.api.url(), page + 1),
            };
            let body = format!(r#"{{"n": 1.10e2, "next_page":{next} ,"tickets":[{page}]}}"#);
            let step = match packed {
                false => step(200, &[JSON], body),
                true => step(200, &[JSON, ("content-encoding", "gzip")], gzip(body)),
            };
            world.api.script(&format!("/p/{page}"), [step]);
        }
        walk(&world, "/api/p/1", |response| {
            let plain = match response.field("content-encoding") {
                Some(_) => {
                    let mut plain = Vec::new();
                    let mut packed = flate2::read::GzDecoder::new(&*response.body);
                    packed.read_to_end(&mut plain).unwrap();
                    plain
                }
                None => response.body.clone(),
            };
            let body: serde_json::Value = serde_json::from_slice(&plain).unwrap();
            body["next_page"].as_str().map(str::to_owned)
        })
        .await;
        assert_eq!(rewritten(&world.forbear, "body"), PAGES as u64 - 1);
    }
}

#[tokio::test]
async fn only_the_beginning_of_an_address_changes_and_the_head_says_so() {
    let world = World::calm("profile = \"zendesk\"\n").await;
    let (own, here) = (world.api.url(), world.forbear.url("/api"));
    let body = |base: &str| {
        format!(
            "{{ \"other\":\"{own}/x\", \"links\" : {{\"next\":\"{base}/p?a=\\u0026\\/b#\u{fc}\"}},\r\n\
             \"number\":1.0000000000000000001,\"next_page\":\"{base}\", \"dup\":1,\"dup\":2}}\n"
        )
    };
    let fields = [
        JSON,
        ("etag", "\"v1\""),
        ("content-md5", "x"),
        ("digest", "sha-256=x"),
        ("repr-digest", "sha-256=:x:"),
        ("accept-ranges", "bytes"),
        ("vary", "accept"),
    ];
    let packed = [&fields[..], &[("content-encoding", "gzip")]].concat();
    world.api.script("/x", [step(200, &fields, body(&own)), step(200, &packed, gzip(body(&own)))]);
    for _ in 0..2 {
        let response = follow(&world.forbear.url("/api/x")).await;
        assert_eq!(response.text(), body(&here));
        assert_eq!(response.field("content-length"), Some(&*response.body.len().to_string()));
        assert_eq!(response.field("etag"), Some("W/\"v1\""));
        assert_eq!(response.field("vary"), Some("accept"));
        for gone in ["content-encoding", "content-md5", "digest", "repr-digest", "accept-ranges"] {
            assert_eq!(response.field(gone), None, "{gone}");
        }
    }
}

#[tokio::test]
async fn a_body_without_an_address_arrives_byte_for_byte_and_so_does_one_that_must_not_be_read() {
    let world = World::calm("profile = \"zendesk\"\n").await;
    let own = world.api.url();
    let page = format!(r#"{{"next_page":"{own}/p/2"}}"#);
    let large = format!(r#"{{"next_page":"{own}/p/2","x":"{}"}}"#, "x".repeat(1 << 20));
    let coded = |coding| [JSON, ("content-encoding", coding)];
    let transformed = |value| [JSON, ("cache-control", value)];
    for (status, fields, body, reason) in [
        (200, &[JSON][..], br#"{"next_page":null,"url":"http://x"}"#.to_vec(), ""),
        (200, &[JSON], br#"{"next_page":"https://other.example/p"}"#.to_vec(), "foreign"),
        (200, &[JSON], br#"{"next_page":"/p/2"}"#.to_vec(), ""),
        (200, &coded("gzip"), gzip(r#"{"next_page":null}"#), ""),
        (200, &[JSON], page.clone().into_bytes()[1..].to_vec(), "not_json"),
        (200, &[JSON], b"\xff{}".to_vec(), "not_json"),
        (200, &[("content-type", "text/plain")], page.clone().into(), ""),
        (200, &[("content-type", "application/x-ndjson")], page.clone().into(), ""),
        (200, &[], page.clone().into(), ""),
        (404, &[JSON], page.clone().into(), ""),
        (206, &[JSON, ("content-range", "bytes 0-1/2")], page.clone().into(), "partial"),
        (200, &transformed("no-transform"), page.clone().into(), "no_transform"),
        (200, &transformed("max-age=1, No-Transform"), page.clone().into(), "no_transform"),
        (200, &coded("br"), page.clone().into(), "coding"),
        (200, &coded("gzip"), page.clone().into(), "coding"),
        (200, &coded("gzip"), gzip(&page)[..30].to_vec(), "coding"),
        (200, &[JSON], large.clone().into(), "too_large"),
        // A little that unpacks to much.
        (200, &coded("gzip"), gzip(&large), "too_large"),
        (200, &coded("gzip"), gzip(vec![b' '; 64 << 20]), "too_large"),
    ] {
        let fields = [fields, &[("etag", "\"v1\""), ("digest", "x")]].concat();
        let before = if reason.is_empty() { 0 } else { untouched(&world.forbear, reason) };
        world.api.script("/x", [step(status, &fields, body.clone())]);
        let response = follow(&world.forbear.url("/api/x")).await;
        assert_eq!(response.status, status);
        assert!(response.body == body, "{reason}: {}", response.head);
        for (name, value) in &fields {
            assert_eq!(response.field(name), Some(*value), "{reason}");
        }
        if !reason.is_empty() {
            assert_eq!(untouched(&world.forbear, reason), before + 1, "{reason}");
        }
    }
    assert_eq!(rewritten(&world.forbear, "body"), 0);
    world.api.script("/x", [step(200, &coded("gzip"), gzip(&page))]);
    let fields = ["Accept-Encoding: gzip, identity;q=0"];
    assert!(world.ask("GET /api/x", &fields, b"").await.body == gzip(&page));
    world.api.script("/x", [step(200, &[JSON], page.as_str())]);
    let fields = ["Cache-Control: no-transform"];
    assert_eq!(world.ask("GET /api/x", &fields, b"").await.text(), page);
}

#[tokio::test]
async fn an_upstream_that_is_told_not_to_rewrite_is_left_alone() {
    let world = World::calm("profile = \"zendesk\"\nrewrite_links = false\n").await;
    let own = world.api.url();
    let body = format!(r#"{{"next_page":"{own}/p/2"}}"#);
    let fields = [JSON, ("location", own.as_str()), ("link", "</p/2>; rel=next")];
    world.api.script("/x", [step(200, &fields, body.as_str())]);
    let response = follow(&world.forbear.url("/api/x")).await;
    assert_eq!((response.text(), response.field("location")), (body, Some(own.as_str())));
    assert_eq!(response.field("link"), Some("</p/2>; rel=next"));
}

#[tokio::test]
async fn a_link_names_the_server_that_the_client_named_and_no_other_or_the_request_is_refused() {
    let world = World::calm("").await;
    let fields = [("location", "/y"), ("content-location", &*world.api.url())];
    for (host, expected) in [
        ("elsewhere.example", Some("elsewhere.example")),
        ("Pod-7.local.:8080", Some("Pod-7.local:8080")),
        ("[::1]:9", Some("[::1]:9")),
        ("a@b", None),
        ("a:1@b", None),
        ("a/b", None),
        ("a?b", None),
        ("a#b", None),
        ("a\\b", None),
        ("a%2fb", None),
        ("a b", None),
        ("a, b", None),
        ("<a>", None),
        ("[::1%25x]", None),
        ("a:99999", None),
    ] {
        world.api.script("/x", [step(201, &fields, "")]);
        let bytes = format!("GET /api/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let response = RawClient::connect(world.forbear.proxy()).await.ask(bytes).await;
        let own = expected.map(|at| format!("http://{at}/api"));
        assert_eq!(response.field("content-location"), own.as_deref(), "{host}");
        assert_eq!(response.status, if own.is_some() { 201 } else { 400 }, "{host}");
    }
}

#[tokio::test]
async fn redirects_of_every_form_stay_inside_and_foreign_ones_are_left_alone() {
    let world = World::calm("").await;
    let (own, proxy) = (world.api.url(), world.forbear.proxy());
    let authority = own.strip_prefix("http://").unwrap();
    for (location, expected) in [
        (format!("{own}/y?z"), format!("http://{proxy}/api/y?z")),
        (format!("//{authority}/y"), format!("http://{proxy}/api/y")),
        ("/y".into(), "/api/y".into()),
        ("y".into(), "y".into()),
        ("../y".into(), "/api/y".into()),
        ("https://login.example/authorize?x".into(), "https://login.example/authorize?x".into()),
        ("http://[".into(), "http://[".into()),
    ] {
        for (status, name) in [(302, "location"), (201, "location"), (200, "content-location")] {
            world.api.script("/x", [step(status, &[(name, &location)], "")]);
            let response = follow(&world.forbear.url("/api/x")).await;
            assert_eq!(response.status, status);
            assert_eq!(response.field(name), Some(&*expected), "{location}");
        }
    }
    world.api.script("/x", [step(200, &[("refresh", &format!("0; url={own}/y"))], "")]);
    let response = follow(&world.forbear.url("/api/x")).await;
    assert_eq!(response.field("refresh"), Some(&*format!("0; url=http://{proxy}/api/y")));
    assert_eq!(rewritten(&world.forbear, "location"), 8);
    assert_eq!(untouched(&world.forbear, "foreign"), 3);
}

#[tokio::test]
async fn every_way_in_is_led_back_the_way_it_came() {
    let rest = "hosts = [\"api.test\"]\nlisten = \"127.0.0.1:0\"\nprofile = \"zendesk\"\n";
    let world = World::calm(rest).await;
    let (own, proxy) = (world.api.url(), world.forbear.proxy());
    let listener = world.forbear.own("api");
    let origin = own.strip_prefix("http://").unwrap();
    for (address, target, host, expected) in [
        (proxy, "/api/x".to_owned(), proxy.to_string(), format!("http://{proxy}/api/p")),
        (proxy, "/api/x".into(), "forbear:80".into(), "http://forbear:80/api/p".into()),
        (proxy, "/x".into(), "api.test:81".into(), "http://api.test:81/p".into()),
        (listener, "/x".into(), listener.to_string(), format!("http://{listener}/p")),
        // Absolute targets, as clients with a proxy setting send them.
        (proxy, format!("http://{proxy}/api/x"), "x".into(), format!("http://{proxy}/api/p")),
        (proxy, "http://api.test/x".into(), "api.test".into(), "http://api.test/p".into()),
        (proxy, format!("{own}/x"), origin.into(), format!("{own}/p")),
    ] {
        let body = format!(r#"{{"next_page":"{own}/p"}}"#);
        world.api.script("/x", [step(200, &[JSON, ("location", &format!("{own}/p"))], body)]);
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let response = RawClient::connect(address).await.ask(bytes).await;
        assert_eq!(response.status, 200, "{target} at {host}: {}", response.head);
        assert_eq!(response.field("location"), Some(&*expected), "{target} at {host}");
        assert_eq!(response.text(), format!(r#"{{"next_page":"{expected}"}}"#));
    }
}

#[tokio::test]
async fn an_absolute_target_reaches_the_upstream_whose_origin_it_names() {
    // Nobody listens there; what counts is who was asked. Over plain HTTP the usual port of a
    // client's URL means the host over TLS.
    let forbear = Forbear::start(
        "[upstreams.api]\nurl = \"https://localhost\"\nconnect_timeout = \"1s\"\n\
         [upstreams.other]\nurl = \"http://127.0.0.1:9\"\n",
    );
    for (target, upstream) in [
        ("https://localhost/x".to_owned(), "api"),
        ("http://localhost/x".into(), "api"),
        ("http://localhost:80/x".into(), "api"),
        ("https://LOCALHOST:443/x".into(), "api"),
        ("http://127.0.0.1:9/x".into(), "other"),
        (forbear.url("/api/x"), "api"),
        (forbear.url("/other/x"), "other"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: x\r\nForbear-Retry: off\r\n\r\n");
        let response = RawClient::connect(forbear.proxy()).await.ask(bytes).await;
        assert_eq!(response.field("forbear-upstream"), Some(upstream), "{target}");
    }
}

#[tokio::test]
async fn links_to_another_upstream_and_below_a_base_path_find_their_prefixes() {
    let world = World::calm("").await;
    let own = world.api.url();
    let forbear = Forbear::start(&format!(
        "[upstreams.api]\nurl = \"{own}/v1\"\n[upstreams.deep]\nurl = \"{own}/v1/deep\"\n\
         [upstreams.other]\nurl = \"https://other.example/base\"\n"
    ));
    for (location, expected) in [
        (format!("{own}/v1/y"), forbear.url("/api/y")),
        (format!("{own}/v1/deep/y"), forbear.url("/deep/y")),
        ("/v1/y".into(), "/api/y".into()),
        ("/v1/deep/y".into(), "/deep/y".into()),
        ("/v2/y".into(), "/v2/y".into()),
        (format!("{own}/v2/y"), format!("{own}/v2/y")),
        ("https://other.example/base/y".into(), forbear.url("/other/y")),
        ("https://other.example/y".into(), "https://other.example/y".into()),
    ] {
        world.api.script("/v1/x", [step(302, &[("location", &location)], "")]);
        let response = follow(&forbear.url("/api/x")).await;
        assert_eq!(response.field("location"), Some(&*expected), "{location}");
    }
    assert_eq!(untouched(&forbear, "unreachable"), 3);
}

#[tokio::test]
async fn a_session_goes_on_behind_forbear_and_not_at_the_host_that_keeps_the_account() {
    let world = World::calm("profile = \"bluesky\"\n").await;
    let body = |pds: &str| {
        format!(
            r##"{{"did":"did:plc:x","didDoc":{{"service":[{{"id":"#atproto_pds","serviceEndpoint":"{pds}"}},{{"serviceEndpoint":"https://labels.example"}}]}}}}"##
        )
    };
    world.api.script("/s", [step(200, &[JSON], body("https://morel.us-east.host.bsky.network"))]);
    let response = follow(&world.forbear.url("/api/s")).await;
    assert_eq!(response.text(), body(&world.forbear.url("/api")));
    world.api.script("/s", [step(200, &[JSON], body("https://pds.example"))]);
    assert_eq!(follow(&world.forbear.url("/api/s")).await.text(), body("https://pds.example"));
    assert_eq!(untouched(&world.forbear, "foreign"), 3);
}

#[tokio::test]
async fn a_head_without_a_body_is_not_waited_for() {
    let world = World::calm("profile = \"zendesk\"\n").await;
    let link = format!("<{}/p/2>; rel=next", world.api.url());
    world.api.script("/x", [step(200, &[JSON, ("link", &link)], "{}")]);
    let mut client = RawClient::connect(world.forbear.proxy()).await;
    client.send(request("HEAD /api/x", &[], b"")).await;
    let response = client.response_to_head().await;
    assert_eq!(response.field("link"), Some("<http://localhost/api/p/2>; rel=next"));
    assert_eq!(response.field("content-length"), Some("2"));
}
