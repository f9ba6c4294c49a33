//! What becomes of an address, by every way in.

use http::{Request, Version};
use proptest::prelude::*;

use super::super::tests::upstream;
use super::*;
use crate::config::settings::UpstreamConfig;

fn configured() -> Vec<UpstreamConfig> {
    let mut catch_all = upstream("all", "http://127.0.0.1:9000", &[]);
    catch_all.prefix = "/".to_owned();
    vec![
        upstream("github", "https://api.github.com", &[]),
        upstream("v1", "https://api.example/v1", &[]),
        upstream("v1/deep", "https://api.example/v1/deep", &[]),
        upstream("odd", "http://odd.example:8000/base", &[]),
        upstream("six", "http://[2001:db8::1]:8000", &[]),
        catch_all,
        upstream("graphql", "https://g.example/graphql", &[]),
        // The same API with another credential.
        upstream("nightly", "https://api.github.com", &[]),
    ]
}

const LOCAL: &str = "127.0.0.1:8080";

/// What the reference is changed to; `=` if it stays, and else a word that says why.
fn seen(listener: Option<&str>, target: &str, host: &str, reference: &str) -> String {
    let routes = Routes::new(&configured());
    let request = Request::builder().uri(target).header("host", host).version(Version::HTTP_11);
    let parts = request.body(()).unwrap().into_parts().0;
    let local = LOCAL.parse().unwrap();
    let target = Target::parse(&parts, local).unwrap();
    let listener = listener.map(|name| routes.named(name).unwrap());
    let found = routes.find(listener, &parts.method, &target).unwrap();
    let main = ["0.0.0.0:7070".parse().unwrap()];
    let back = routes.way_back(found.upstream, found.path, listener, &target, local, &main);
    match back.of(reference) {
        Back::Kept => "=".to_owned(),
        Back::Foreign => "foreign".to_owned(),
        Back::Unreachable => "unreachable".to_owned(),
        Back::Rewritten(Rewritten { head, taken }) => format!("{head}{}", &reference[taken..]),
    }
}

#[test]
fn an_address_leads_through_the_prefix_by_which_the_client_came() {
    for (target, reference, expected) in [
        (
            "/github/a",
            "https://api.github.com/a?page=2#x",
            "http://localhost:8080/github/a?page=2#x",
        ),
        ("/github/a", "HTTPS://API.GitHub.com:443/a", "http://localhost:8080/github/a"),
        ("/github/a", "https://api.github.com", "http://localhost:8080/github"),
        ("/github/a", "https://api.github.com?page=2", "http://localhost:8080/github?page=2"),
        ("/github/a", "//api.github.com/b", "http://localhost:8080/github/b"),
        ("/github/a", "/b/c?d", "/github/b/c?d"),
        ("/github/a", "/", "/github/"),
        // Another upstream; of several at one origin the one with the longest base path.
        ("/github/a", "https://api.example/v1/x", "http://localhost:8080/v1/x"),
        ("/github/a", "https://api.example/v1/deep/x", "http://localhost:8080/v1/deep/x"),
        ("/v1/a", "/v1/b", "="),
        ("/v1/a", "/v1/deep/b", "="),
        ("/nightly/a", "https://api.github.com/b", "http://localhost:8080/nightly/b"),
        ("/nightly/a", "/b", "/nightly/b"),
        ("/odd/a", "/base/b", "/odd/b"),
        ("/odd/a", "http://odd.example:8000/base/b", "http://localhost:8080/odd/b"),
        ("/six/a", "http://[2001:DB8::1]:8000/b", "http://localhost:8080/six/b"),
        ("/x", "http://127.0.0.1:9000/b", "http://localhost:8080/b"),
        ("/x", "/b", "="),
        // What would lead to another upstream than it names is not written.
        ("/x", "http://127.0.0.1:9000/github/b", "unreachable"),
        ("/x", "/github/b", "unreachable"),
        ("/v1/a", "/v2/b", "unreachable"),
        ("/v1/a", "https://api.example/v10/b", "unreachable"),
        ("/github/a", "https://api.github.com/a/../b", "unreachable"),
        ("/github/a", "https://api.github.com//b", "unreachable"),
    ] {
        assert_eq!(
            seen(None, target, "localhost:8080", reference),
            expected,
            "{target} {reference}"
        );
    }
}

#[test]
fn what_is_foreign_or_no_address_stays() {
    for (reference, expected) in [
        ("https://github.com/a", "foreign"),
        ("https://api.github.com.evil.example/a", "foreign"),
        ("http://api.github.com/a", "foreign"),
        ("https://api.github.com:8443/a", "foreign"),
        ("//cdn.example/a", "foreign"),
        ("https://user@api.github.com/a", "="),
        ("https://api.github.com\\@evil.example/a", "="),
        ("https:///a", "="),
        ("https:a", "="),
        ("https:/a", "="),
        ("ftp://api.github.com/a", "="),
        ("mailto:a@api.github.com", "="),
        ("http://localhost:8080/github/a", "foreign"),
        ("b", "="),
        ("?page=2", "="),
        ("#x", "="),
        ("", "="),
        (" https://api.github.com/a", "="),
    ] {
        assert_eq!(seen(None, "/github/a", "localhost:8080", reference), expected, "{reference}");
    }
}

#[test]
fn a_relative_reference_is_changed_only_where_it_would_lead_elsewhere() {
    for (target, reference, expected) in [
        ("/github/a/b", "../c", "="),
        ("/github/a/b", "./c", "="),
        ("/github/a/b", "../../c?d=e", "/github/c?d=e"),
        ("/odd/a", "../x", "unreachable"),
        ("/odd/a/b", "../../base/x", "/odd/x"),
        ("/graphql", "?page=2", "="),
        ("/graphql", "graphql/x", "="),
        ("/github", "a", "/github/a"),
    ] {
        assert_eq!(
            seen(None, target, "localhost:8080", reference),
            expected,
            "{target} {reference}"
        );
    }
}

#[test]
fn a_client_that_came_by_a_name_or_a_listener_is_led_back_there() {
    let url = "https://api.github.com/b?c";
    let other = "http://odd.example:8000/base/b";
    for (listener, target, host, reference, expected) in [
        (None, "/a", "github.localhost:8080", url, "http://github.localhost:8080/b?c"),
        (None, "/a", "github.localhost:8080", "/b", "="),
        (None, "/a", "github.localhost:8080", other, "http://127.0.0.1:8080/odd/b"),
        (None, "/a", "odd.localhost:8080", "/base/b", "/b"),
        // As with the proxy setting of a client.
        (None, "http://api.github.com/a", "x", url, "http://api.github.com/b?c"),
        (None, "http://api.github.com/a", "x", "/b", "="),
        (
            None,
            "http://api.example/v1/a",
            "x",
            "https://api.example/v1/b",
            "http://api.example/v1/b",
        ),
        (None, "http://api.example/v1/a", "x", "/v1/deep/b", "="),
        (None, "https://api.github.com/a", "x", url, "="),
        (None, "http://github.localhost/a", "x", url, "http://github.localhost/b?c"),
        (None, "http://api.github.com/a", "x", other, "http://127.0.0.1:8080/odd/b"),
        (None, "http://127.0.0.1:8080/github/a", "x", url, "http://127.0.0.1:8080/github/b?c"),
        (None, "/github/a", "[::1]:8080", url, "http://[::1]:8080/github/b?c"),
        (None, "/github/a", "forbear", url, "http://forbear/github/b?c"),
        (Some("github"), "/a", "sidecar:8101", url, "http://sidecar:8101/b?c"),
        (Some("github"), "/a", "sidecar:8101", "/b", "="),
        (Some("odd"), "/a", "sidecar:8101", "/base/b", "/b"),
        (Some("odd"), "/a", "sidecar:8101", "/base", "/"),
        (Some("github"), "/a", "sidecar:8101", other, "http://127.0.0.1:7070/odd/b"),
        (Some("github"), "http://api.github.com/a", "x", url, "http://api.github.com/b?c"),
    ] {
        let place = format!("{target} at {host}: {reference}");
        assert_eq!(seen(listener, target, host, reference), expected, "{place}");
    }
}

#[test]
fn a_session_follows_to_the_hosts_that_the_profile_knows_and_to_no_other() {
    let routes = Routes::new(&configured());
    let parts = Request::builder().uri("/github/a").header("host", "h:1").body(()).unwrap();
    let parts = parts.into_parts().0;
    let local = LOCAL.parse().unwrap();
    let target = Target::parse(&parts, local).unwrap();
    let back = routes.way_back(0, "/a", None, &target, local, &[]);
    let is_same = |host: &str| host.ends_with(".host.example");
    for (reference, expected) in [
        ("https://one.host.example", Some("http://h:1/github")),
        ("https://ONE.host.example:443/x", Some("http://h:1/github/x")),
        ("https://api.github.com/x", Some("http://h:1/github/x")),
        ("http://one.host.example", None),
        ("https://one.host.example:8443", None),
        ("https://own.example", None),
        ("//one.host.example", None),
        ("/x", None),
    ] {
        let seen = match back.of_session(reference, is_same) {
            Back::Rewritten(new) => Some(format!("{}{}", new.head, &reference[new.taken..])),
            Back::Kept | Back::Foreign | Back::Unreachable => None,
        };
        assert_eq!(seen.as_deref(), expected, "{reference}");
    }
}

proptest! {
    #[test]
    fn no_reference_makes_it_panic_and_what_is_written_leads_to_the_place_that_was_meant(
        reference in "(https?:)?(//)?(api\\.github\\.com|api\\.example|odd\\.example:8000|.)?(/|\\.\\.|v1|deep|base|%2f|[a-z]|\\?|#|\u{fc}|\\\\){0,12}",
        host in "(localhost:8080|github\\.localhost|odd\\.localhost:1)",
    ) {
        let routes = Routes::new(&configured());
        let from = if host.starts_with("localhost") { "/github/a" } else { "/a" };
        let request = Request::builder().uri(from).header("host", &host);
        let parts = request.body(()).unwrap().into_parts().0;
        let local = LOCAL.parse().unwrap();
        let target = Target::parse(&parts, local).unwrap();
        let found = routes.find(None, &parts.method, &target).unwrap();
        let back = routes.way_back(found.upstream, found.path, None, &target, local, &[]);
        let Back::Rewritten(Rewritten { head, taken }) = back.of(&reference) else { return Ok(()) };
        let whole = format!("{head}{}", reference.get(taken..).unwrap());
        // As the client would ask for it.
        let whole = if whole.starts_with('/') { format!("http://{host}{whole}") } else { whole };
        let Some(rest) = whole.strip_prefix("http://") else { return Ok(()) };
        let (at, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // RFC 9112 3.2.1: an empty path is sent as `/`.
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let Ok(uri) = path.parse::<http::Uri>() else { return Ok(()) };
        let parts = Request::builder().uri(uri).header("host", at).body(()).unwrap().into_parts().0;
        let again = Target::parse(&parts, local).unwrap();
        let to = routes.find(None, &parts.method, &again);
        prop_assert!(to.is_ok(), "{reference} became {whole}");
        let meant = ["api.github.com", "api.example", "odd.example"];
        let meant = meant.iter().position(|name| reference.contains(name));
        let reached = to.unwrap().upstream;
        match meant {
            Some(0) => prop_assert!(reached == 0 || reached == 7),
            Some(1) => prop_assert!(reached == 1 || reached == 2),
            Some(_) => prop_assert_eq!(reached, 3),
            None => prop_assert_eq!(reached, found.upstream),
        }
    }
}
