//! What reading and writing heads costs, by their number of fields.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forbear::policy::classify::{Observed, classify};
use forbear::policy::hints;
use forbear::policy::time::WallTime;
use forbear::proxy::directives::{Directives, safety};
use forbear::proxy::head::{self, UpstreamHead};
use forbear::proxy::response_head;
use forbear::proxy::survey::Survey;
use forbear::transport::{Replay, ReplayMemory, Source};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;

use super::harness::{Case, Pass};
use super::world::{settings, upstreams};

const FIELDS: &[usize] = &[3, 10, 30, 100];
const NOW: WallTime = WallTime { unix_ms: 1_768_471_200_000 };

pub(super) const CASES: &[Case] = &[
    Case {
        name: "head/request",
        what: "a request head of so many fields is checked and written for the upstream",
        sizes: FIELDS,
        setup: request_head,
    },
    Case {
        name: "head/response",
        what: "a response head of so many fields is made fit for the client",
        sizes: FIELDS,
        setup: response_head,
    },
    Case {
        name: "head/directives",
        what: "what the client asks of forbear is read, among so many fields",
        sizes: FIELDS,
        setup: directives,
    },
    Case {
        name: "hints/plain",
        what: "a response of so many fields is read that says nothing of limits",
        sizes: FIELDS,
        setup: |fields| read_hints(200, fields, &[]),
    },
    Case {
        name: "hints/quota",
        what: "the same with a quota in GitHub's fields",
        sizes: FIELDS,
        setup: |fields| read_hints(200, fields, QUOTA),
    },
    Case {
        name: "hints/refusal",
        what: "the same, refused with Retry-After",
        sizes: FIELDS,
        setup: |fields| read_hints(429, fields, REFUSAL),
    },
    Case {
        name: "body/replay",
        what: "a request body of so many bytes is taken, kept and read to its end",
        sizes: &[0, 1_000, 10_000, 100_000],
        setup: replay,
    },
];

const QUOTA: &[(&str, &str)] = &[
    ("x-ratelimit-limit", "5000"),
    ("x-ratelimit-remaining", "4321"),
    ("x-ratelimit-reset", "1768474800"),
];

const REFUSAL: &[(&str, &str)] = &[("retry-after", "30"), ("x-ratelimit-remaining", "0")];

/// What is on every message, and then `count` in all.
fn fields(count: usize, first: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in first {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    for n in headers.len()..count {
        let name = HeaderName::try_from(format!("x-field-{n}")).expect("it is a name");
        headers.insert(name, HeaderValue::from_static("a value of usual length"));
    }
    headers
}

fn request(count: usize) -> http::request::Parts {
    let uri = "/api-0/search/code?q=retry";
    let mut parts = Request::builder().uri(uri).body(()).expect("it is valid").into_parts().0;
    parts.headers = fields(
        count,
        &[("host", "127.0.0.1:8080"), ("accept", "*/*"), ("forbear-key", "tenant:7")],
    );
    parts
}

fn request_head(count: usize) -> Pass {
    let upstream = &settings(&upstreams(1)).upstreams[0];
    let upstream = UpstreamHead::new(upstream).expect("it is valid");
    let parts = request(count);
    Box::new(move || {
        let seen = Survey::of(&parts.headers);
        head::check(&parts, seen).expect("it is valid");
        let query = Some("q=retry");
        let _ = black_box(head::upstream_request(&parts, seen, "/search/code", query, &upstream));
    })
}

fn response(count: usize, more: &[(&'static str, &'static str)]) -> http::response::Parts {
    let mut parts = Response::new(()).into_parts().0;
    let first = [("content-type", "application/json"), ("date", "Thu, 15 Jan 2026 10:00:00 GMT")];
    parts.headers = fields(count, &[&first, more].concat());
    parts
}

/// Cloned for each pass, which is a part of what is measured.
fn response_head(count: usize) -> Pass {
    let parts = response(count, &[("content-length", "4000")]);
    Box::new(move || {
        let mut parts = parts.clone();
        let _ = black_box(response_head::downstream_response(&mut parts, &Method::GET, None));
    })
}

fn directives(count: usize) -> Pass {
    let parts = request(count);
    Box::new(move || {
        let directives = Directives::parse(&parts.headers, Survey::of(&parts.headers), NOW)
            .expect("they are valid");
        black_box(safety(&parts.method, &parts.headers, &directives, None));
    })
}

fn read_hints(status: u16, count: usize, more: &[(&'static str, &'static str)]) -> Pass {
    let headers = response(count, more).headers;
    let took = Duration::from_millis(20);
    Box::new(move || {
        black_box(hints::read(status, &headers, NOW));
        let observed = Observed::Response { status, headers: &headers };
        black_box(classify(observed, NOW, took, Duration::from_secs(60)));
    })
}

fn replay(size: usize) -> Pass {
    let memory = Arc::new(ReplayMemory::new(1 << 30));
    let bytes = Bytes::from(vec![b'x'; size]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    Box::new(move || {
        let source = if bytes.is_empty() { Source::Empty } else { Source::Full(bytes.clone()) };
        let body = Replay::new(source, 1 << 20, memory.clone(), Duration::from_secs(30));
        let sent = body.attempt().expect("nobody has taken it");
        runtime.block_on(async { black_box(sent.collect().await.is_ok()) });
    })
}
