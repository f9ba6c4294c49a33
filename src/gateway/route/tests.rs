//! Which upstream and which route a request finds, by every way in.

use std::num::NonZeroU8;
use std::time::Duration;

use http::{Request, Version};
use proptest::prelude::*;

use super::*;
use crate::config::settings::{RouteConfig, TlsConfig};
use crate::policy::settings::{
    Backoff, BackoffFamily, BreakerSettings, Mode, RetrySettings, RouteSettings, UpstreamSettings,
};

/// An upstream with `url`, its prefix `/name` and routes by pattern after the default one.
pub(crate) fn upstream(name: &str, url: &str, patterns: &[&str]) -> UpstreamConfig {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, base_path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (scheme, port) = if scheme == "https" { (Scheme::Https, 443) } else { (Scheme::Http, 80) };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, given)) if !given.ends_with(']') => (host, given.parse().unwrap()),
        _ => (authority, port),
    };
    let pattern = |pattern: &&str| {
        let (method, path) = pattern
            .split_once(' ')
            .map_or((None, *pattern), |(method, path)| (Some(method.to_owned()), path));
        Some(RouteMatch { method, path: path.to_owned() })
    };
    let matchers = std::iter::once(None).chain(patterns.iter().map(pattern));
    let routes: Vec<RouteConfig> = matchers.enumerate().map(route).collect();
    UpstreamConfig {
        name: name.into(),
        origin: Origin { scheme, host: host.trim_matches(['[', ']']).to_owned(), port },
        base_path: base_path.to_owned(),
        prefix: format!("/{name}"),
        hosts: vec![format!("{name}.localhost")],
        listen: None,
        profile: None,
        dialect: Arc::new(crate::policy::profile::GENERIC.clone()),
        buckets: Vec::new(),
        costs: Vec::new(),
        rewrite_links: true,
        idempotency_key: None,
        makes_idempotency_key: false,
        credential: None,
        credential_from: None,
        tls: TlsConfig::default(),
        key: None,
        connect_timeout: Duration::from_secs(5),
        replay_body_max: 0,
        policy: Arc::new(policy(&routes)),
        routes,
    }
}

fn route((index, matcher): (usize, Option<RouteMatch>)) -> RouteConfig {
    RouteConfig {
        name: format!("route-{index}").into(),
        matcher,
        key: None,
        attempt_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
    }
}

fn policy(routes: &[RouteConfig]) -> UpstreamSettings {
    let breaker = BreakerSettings {
        consecutive_failures: 5,
        failure_rate: 0.5,
        window: Duration::from_secs(60),
        samples_min: 10,
        open_for: Duration::from_secs(30),
        open_for_max: Duration::from_secs(600),
        successes_to_close: 2,
        slow_after: None,
        slow_rate: 0.8,
    };
    let route = |route: &RouteConfig| RouteSettings {
        name: Arc::clone(&route.name),
        in_flight_max: None,
        max_wait: Duration::from_secs(50),
        retry: RetrySettings {
            attempts_max: NonZeroU8::MIN,
            throttled_counts: false,
            unsafe_503: false,
            backoff: Backoff {
                family: BackoffFamily::Fixed,
                base: Duration::from_millis(500),
                max: Duration::from_secs(30),
            },
            budget_ratio: 0.2,
            budget_floor_per_minute: 10,
        },
        breaker: None,
        mode: Mode::Enforce,
    };
    let routes = routes.iter().map(route).collect();
    UpstreamSettings {
        in_flight_max: 16,
        queue_max: 1000,
        breaker,
        routes,
        buckets: Vec::new(),
        quotas: Vec::new(),
        pacing: crate::policy::settings::Pacing::Observe,
    }
}

fn configured() -> Vec<UpstreamConfig> {
    let mut catch_all = upstream("all", "http://127.0.0.1:9000", &[]);
    catch_all.prefix = "/".to_owned();
    vec![
        upstream("github", "https://api.github.com", &["GET /search/*", "/repos/*/issues/**"]),
        upstream("github/v2", "https://v2.example:8443/base/v2", &[]),
        upstream("six", "http://[2001:db8::1]:8000", &[]),
        catch_all,
    ]
}

/// Upstream and path of `GET target`, as strings, to be read in a table.
fn found(routes: &Routes, listener: Option<usize>, target: &str, host: &str) -> String {
    let request = Request::builder().uri(target).header("host", host).version(Version::HTTP_11);
    let parts = request.body(()).unwrap().into_parts().0;
    let target = Target::parse(&parts, "127.0.0.1:8080".parse().unwrap()).unwrap();
    match routes.find(listener, &parts.method, &target) {
        Ok(found) => format!("{} {}", found.upstream, found.path),
        Err(NoRoute::UnsafePath(_)) => "unsafe".to_owned(),
        Err(other) => format!("{other:?}"),
    }
}

#[test]
fn the_longest_prefix_wins_and_is_stripped_while_the_rest_stays_as_it_came() {
    let routes = Routes::new(&configured());
    for (target, expected) in [
        ("/github", "0 "),
        ("/github?q", "0 "),
        ("/github/", "0 /"),
        ("/github/a%2Fb;x//y?q=/../", "0 /a%2Fb;x//y"),
        ("/github/v2/x", "1 /x"),
        ("/github/v2x", "0 /v2x"),
        ("/githubx", "3 /githubx"),
        ("/%67ithub/x", "0 /x"),
        ("/", "3 /"),
        ("/github//evil", "unsafe"),
        ("//github/x", "unsafe"),
        ("/github/../six/x", "unsafe"),
        ("/github/%2e%2E/six/x", "unsafe"),
        ("/github/..;/six", "unsafe"),
        ("/github\\x", "unsafe"),
        ("/github%2Fx", "unsafe"),
        ("/github%2fv2/x", "unsafe"),
        ("/github/v2%5cx", "unsafe"),
        ("/github/a%00", "unsafe"),
        ("/git%zz", "unsafe"),
        ("/github/%zz", "unsafe"),
        ("/github/x/%zz", "0 /x/%zz"),
    ] {
        assert_eq!(found(&routes, None, target, "localhost:8080"), expected, "{target}");
    }
}

#[test]
fn an_upstream_is_also_found_by_its_hosts_its_origin_and_an_absolute_target() {
    let routes = Routes::new(&configured());
    for (target, host, expected) in [
        ("/x", "github.localhost:8080", "0 /x"),
        ("/github/x", "GitHub.localhost", "0 /github/x"),
        ("/x", "api.github.com", "0 /x"),
        ("/x", "api.github.com:80", "3 /x"),
        ("/x", "unknown.example", "3 /x"),
        ("http://api.github.com/x?y", "localhost", "0 /x"),
        ("https://api.github.com/x", "localhost", "0 /x"),
        ("http://API.github.com:80/x", "localhost", "0 /x"),
        ("http://api.github.com:8080/x", "localhost", "ForeignOrigin"),
        ("http://github.localhost/x", "localhost", "0 /x"),
        ("https://v2.example:8443/base/v2/x", "localhost", "1 /x"),
        ("https://v2.example:8443/base/v2", "localhost", "1 "),
        ("https://v2.example:8443/base", "localhost", "OutsideBase"),
        ("https://v2.example:8443/base%2Fv2/x", "localhost", "unsafe"),
        ("http://v2.example:8443/base/v2/x", "localhost", "ForeignOrigin"),
        ("http://[2001:DB8:0::1]:8000/x", "localhost", "2 /x"),
        ("http://127.0.0.1:9000/x", "localhost", "3 /x"),
        ("http://127.0.0.1:8080/github/x", "evil.example", "0 /x"),
        ("http://evil.example/github/x", "github.localhost", "ForeignOrigin"),
        ("http://169.254.169.254/", "localhost", "ForeignOrigin"),
        ("http://api.github.com//x", "localhost", "unsafe"),
    ] {
        assert_eq!(found(&routes, None, target, host), expected, "{target} at {host}");
    }
}

#[test]
fn an_upstreams_own_listener_serves_that_upstream_only() {
    let routes = Routes::new(&configured());
    for (target, expected) in [
        ("/github/x", "1 /github/x"),
        ("/", "1 /"),
        ("//x", "unsafe"),
        ("http://127.0.0.1:8080/x", "1 /x"),
        ("https://v2.example:8443/base/v2/x", "1 /x"),
        ("http://api.github.com/x", "ForeignOrigin"),
    ] {
        assert_eq!(found(&routes, Some(1), target, "api.github.com"), expected, "{target}");
    }
}

#[test]
fn upstreams_that_share_an_origin_are_told_apart_by_the_longest_base_path() {
    let routes = Routes::new(&[
        upstream("a", "https://api.example", &[]),
        upstream("b", "https://api.example/v2", &[]),
    ]);
    assert_eq!(found(&routes, None, "http://api.example/v2/x", "l"), "1 /x");
    assert_eq!(found(&routes, None, "http://api.example/v1/x", "l"), "0 /v1/x");
}

#[test]
fn options_for_the_whole_server_belongs_to_no_upstream() {
    let parts = Request::options("*").header("host", "a").body(()).unwrap().into_parts().0;
    let target = Target::parse(&parts, "127.0.0.1:8080".parse().unwrap()).unwrap();
    let routes = Routes::new(&configured());
    for listener in [None, Some(0)] {
        assert_eq!(routes.find(listener, &parts.method, &target), Err(NoRoute::Unmatched));
    }
}

#[test]
fn the_first_route_in_the_order_of_the_configuration_wins() {
    let patterns = ["GET /search/*", "/repos/*/issues", "/repos/**", "/exact", "/search/code"];
    let entry = Entry::new(&upstream("a", "http://a", &patterns));
    for (method, path, expected) in [
        ("GET", "/search/code", 1),
        ("POST", "/search/code", 5),
        ("GET", "/search/a/b", 1),
        ("GET", "/%73earch/x", 1),
        ("GET", "//search//x", 1),
        ("GET", "/search", 0),
        ("GET", "/search/", 0),
        ("GET", "/searchx/y", 0),
        ("GET", "/repos/a/issues", 2),
        ("GET", "/repos/a%2Fb/issues", 2),
        ("GET", "/repos/a/issues/1", 3),
        ("GET", "/repos", 3),
        ("GET", "/exact", 4),
        ("GET", "/exact/more", 0),
        ("GET", "", 0),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(entry.route(&method, path), expected, "{method} {path}");
    }
}

proptest! {
    /// Decodes once and resolves dot segments the way an upstream may, and looks where that ends.
    #[test]
    fn a_path_that_is_let_through_stays_under_its_prefix_for_any_reader(
        segments in prop::collection::vec(
            prop::sample::select(vec![
                "github", "%67ithub", "..", ".", "%2e%2e", ".%2E", "", "a", "%2f", "%5c", ";x",
                "..;", "%zz", "six", "..%2f", "v2",
            ]), 0..7),
    ) {
        let path = format!("/{}", segments.join("/"));
        let mut configured = configured();
        configured.pop();
        let found = found(&Routes::new(&configured), None, &path, "localhost");
        if let Some((index, rest)) = found.split_once(' ') {
            prop_assert!(path.ends_with(rest));
            let decoded = path.replace("%2e", ".").replace("%2E", ".").replace("%67", "g");
            let decoded = decoded.replace("%2f", "/").replace("%5c", "/");
            let mut resolved = Vec::new();
            for segment in decoded.split('/').map(|s| s.split(';').next().unwrap()) {
                match segment {
                    "" | "." => {}
                    ".." => drop(resolved.pop()),
                    other => resolved.push(other),
                }
            }
            let prefix = &configured[index.parse::<usize>().unwrap()].prefix;
            let inside = format!("/{}/", resolved.join("/")).starts_with(&format!("{prefix}/"));
            prop_assert!(inside, "{}", path);
        }
    }
}
