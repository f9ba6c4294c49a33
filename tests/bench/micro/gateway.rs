//! What the number of configured upstreams and routes does to finding one, asking it, counting
//! for it and showing all of them.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use forbear::gateway::clock::Clock;
use forbear::gateway::route::Routes;
use forbear::gateway::{Common, Gateway};
use forbear::policy::outcome::{Class, Sent, Waits};
use forbear::policy::time::WallTime;
use forbear::policy::upstream::Answer;
use forbear::proxy::target::Target;
use forbear::telemetry::access::AccessLogger;
use forbear::telemetry::metrics::Metrics;
use forbear::telemetry::scrape;
use forbear::telemetry::story::{AttemptStory, Decision, Ending, RequestId, Story};
use forbear::telemetry::view::ProcessView;
use forbear::telemetry::writer::LogWriter;
use http::{Method, Request};

use super::harness::{Case, Pass};
use super::world::{ask, needs, report, served, settings, upstreams};

const UPSTREAMS: &[usize] = &[1, 10, 100, 1_000, 10_000];

pub(super) const CASES: &[Case] = &[
    Case {
        name: "route/prefix",
        what: "a request finds one of so many upstreams by its prefix",
        sizes: UPSTREAMS,
        setup: |size| find(size, |n| format!("/api-{n}/search/code?q=retry"), "127.0.0.1:8080"),
    },
    Case {
        name: "route/prefix-missed",
        what: "a request names none of so many prefixes",
        sizes: UPSTREAMS,
        setup: |size| find(size, |n| format!("/abi-{n}/search/code?q=retry"), "127.0.0.1:8080"),
    },
    Case {
        name: "route/origin",
        what: "a request finds one of so many upstreams by an absolute target",
        sizes: UPSTREAMS,
        setup: |size| find(size, |n| format!("http://api-{n}.example/search/code?q=retry"), "a"),
    },
    Case {
        name: "route/host",
        what: "a request finds one of so many upstreams by Host",
        sizes: UPSTREAMS,
        setup: by_host,
    },
    Case {
        name: "route/listener",
        what: "a request comes in at the listener of one of so many upstreams",
        sizes: UPSTREAMS,
        setup: by_listener,
    },
    Case {
        name: "route/patterns",
        what: "a request matches the last of so many routes of an upstream",
        sizes: &[1, 10, 100],
        setup: by_pattern,
    },
    Case {
        name: "gateway/pass",
        what: "an exchange as the proxy leads it, with its locks and clock, through 1 of 16 of so many",
        sizes: &[1, 10, 100, 1_000],
        setup: pass,
    },
    Case {
        name: "metrics/exchange",
        what: "a finished exchange is counted for one of so many upstreams",
        sizes: &[1, 10, 100, 1_000],
        setup: |size| count(size, 1, |_| 200),
    },
    Case {
        name: "metrics/statuses",
        what: "a finished exchange is counted, with so many status codes about",
        sizes: &[1, 10, 100],
        setup: |size| count(1, size, |n| 200 + u16::try_from(n).unwrap_or(0)),
    },
    Case {
        name: "metrics/scrape",
        what: "an answer to /metrics with so many upstreams",
        sizes: &[1, 10, 100, 1_000],
        setup: scrape_all,
    },
    Case {
        name: "gateway/build",
        what: "a reload that changes nothing, with so many upstreams",
        sizes: &[1, 10, 100, 1_000],
        setup: rebuild,
    },
];

/// One of up to this many targets after the other, spread over all upstreams.
const TARGETS: usize = 64;

fn find(size: usize, target: fn(usize) -> String, host: &'static str) -> Pass {
    let at = |n: usize| request(&target(n), host);
    finder(Routes::new(&settings(&upstreams(size)).upstreams), spread(size).map(at).collect(), None)
}

fn by_host(size: usize) -> Pass {
    let at = |n: usize| request("/search/code?q=retry", &format!("api-{n}.test"));
    finder(Routes::new(&settings(&upstreams(size)).upstreams), spread(size).map(at).collect(), None)
}

fn by_listener(size: usize) -> Pass {
    let requests = vec![request("/search/code?q=retry", "127.0.0.1:9000")];
    finder(Routes::new(&settings(&upstreams(size)).upstreams), requests, Some(size - 1))
}

fn by_pattern(size: usize) -> Pass {
    let mut text = "[upstreams.api]\nurl = \"http://api.example\"\n".to_owned();
    for n in 0..size {
        text += &format!(
            "[[upstreams.api.routes]]\nname = \"r{n}\"\nmatch = \"GET /part-{n}/*/items/**\"\n"
        );
    }
    let requests = vec![request(&format!("/api/part-{}/7/items/1", size - 1), "127.0.0.1:8080")];
    finder(Routes::new(&settings(&text).upstreams), requests, None)
}

fn spread(size: usize) -> impl Iterator<Item = usize> {
    (0..TARGETS.min(size)).map(move |n| (n + 1) * size / TARGETS.min(size) - 1)
}

fn request(target: &str, host: &str) -> http::request::Parts {
    let request = Request::builder().method(Method::GET).uri(target).header("host", host);
    request.body(()).expect("it is valid").into_parts().0
}

fn finder(routes: Routes, requests: Vec<http::request::Parts>, own: Option<usize>) -> Pass {
    let local = "127.0.0.1:8080".parse().expect("it is an address");
    let mut at = 0;
    Box::new(move || {
        let parts = &requests[at];
        let target = Target::parse(parts, local).expect("it is valid");
        let _ = black_box(routes.find(own, &parts.method, &target));
        at = (at + 1) % requests.len();
    })
}

fn build(size: usize) -> Gateway {
    let settings = Arc::new(settings(&(LOG.to_owned() + &upstreams(size))));
    let metrics = Arc::new(Metrics::new());
    let log = LogWriter::start(io::sink(), metrics.log_lines_dropped.clone()).expect("a thread");
    let clock = Clock::pinned(WallTime { unix_ms: 1_768_471_200_000 });
    let common = Common::new(clock, metrics, &settings);
    let access = AccessLogger::new(settings.log, log);
    let gateway = Gateway::build(settings, access, &common, None).expect("it is valid");
    gateway.enforce();
    gateway
}

const LOG: &str = "[log]\naccess = \"off\"\n";

fn rebuild(size: usize) -> Pass {
    let mut gateway = build(size);
    Box::new(move || {
        let settings = gateway.settings.clone();
        let access = gateway.access.clone();
        let next = Gateway::build(settings, access, &gateway.common, Some(&gateway));
        gateway = next.expect("it is valid");
        gateway.enforce();
        gateway.common.metrics.retain(&gateway.settings);
    })
}

fn pass(size: usize) -> Pass {
    let gateway = build(size);
    let needs = needs(1, 7, &[]);
    let mut at = 0;
    Box::new(move || {
        let state = &gateway.upstreams[at].state;
        let asked = ask(needs.clone());
        let mut ticket = state.with(|policy, cx| policy.join(cx, asked)).expect("there is room");
        let Answer::Go(grant) = state.with(|policy, cx| policy.ask(cx, &mut ticket)) else {
            panic!("nothing is in its way");
        };
        let (sent, permit) = grant.split();
        let report = report(&ticket, served());
        state.with(|policy, cx| policy.settle(cx, &mut ticket, sent, &permit, &report));
        state.with(|policy, cx| policy.quit(cx, ticket));
        state.with(|policy, cx| policy.release(cx, permit));
        at = (at + (size / 16).max(1)) % size;
    })
}

fn story(upstream: &str, status: u16) -> Story {
    Story {
        id: RequestId::new(WallTime { unix_ms: 1_768_471_200_000 }, 7),
        started: WallTime { unix_ms: 1_768_471_200_000 },
        upstream: Some(upstream.into()),
        route: Some("search".into()),
        method: Method::GET,
        path: "/search/code".to_owned(),
        keys: Vec::new(),
        flow: None,
        run: None,
        trace: None,
        attempts: vec![AttemptStory {
            n: 1,
            status: Some(status),
            class: Class::Ok,
            sent: Sent::Answered,
            error: None,
            sent_after: Duration::ZERO,
            took: Duration::from_millis(20),
            hint: None,
            told: Default::default(),
            waited: Waits::default(),
        }],
        waited: Waits::default(),
        shadow: None,
        notes: Default::default(),
        decision: Decision::Pass,
        status,
        ending: Ending::Ok,
        bytes_up: 0,
        bytes_down: 4_000,
        took: Duration::from_millis(21),
        streamed: Duration::from_micros(50),
    }
}

fn count(upstreams: usize, statuses: usize, status: fn(usize) -> u16) -> Pass {
    let gateway = build(upstreams);
    let stories: Vec<Story> = (0..statuses).map(|n| story("api", status(n))).collect();
    let (mut at, mut of) = (0, 0);
    Box::new(move || {
        gateway.upstreams[at].metrics.exchange(&stories[of]);
        at = (at + (upstreams / 16).max(1)) % upstreams;
        of = (of + 1) % statuses;
    })
}

fn scrape_all(size: usize) -> Pass {
    let gateway = build(size);
    let process = ProcessView { draining: false, listeners: vec![("proxy".to_owned(), 1)] };
    for upstream in &gateway.upstreams {
        upstream.metrics.exchange(&story(&upstream.config.name, 200));
    }
    Box::new(move || {
        let (upstreams, keys) = (gateway.upstream_views(), gateway.key_views());
        black_box(scrape::text(&gateway.common.metrics, &upstreams, &keys, &process));
    })
}
