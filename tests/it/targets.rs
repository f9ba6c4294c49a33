//! Where a request goes: only ever to the configured address, by a path that everybody reads alike.

use crate::support::forbear::Forbear;
use crate::support::strict::{Attack, PLAIN, StrictOrigin};

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

#[tokio::test]
async fn no_target_and_no_field_chooses_an_address() {
    let attack = Attack::start().await;
    let canary = attack.canary.addr;
    for target in [
        format!("http://{canary}/x"),
        format!("http://{canary}/api/x"),
        format!("https://{canary}/api/x"),
        format!("HTTP://{canary}/"),
        format!("http://{canary}"),
        format!("http://{canary}?x"),
        format!("http://localhost:{}/api/x", canary.port()),
        format!("http://user@{canary}/api/x"),
        format!("http://localhost@{canary}/api/x"),
        format!("http://{}@{canary}/x", attack.forbear.proxy()),
        format!("http://{}#@{canary}/x", attack.origin.addr),
        format!("http://{}\\@{canary}/x", attack.origin.addr),
        format!("//{canary}/api/x"),
        format!("///{canary}/api/x"),
        format!("/\\{canary}/api/x"),
        format!("\\\\{canary}/api/x"),
        format!("{canary}"),
        format!("@{canary}/api/x"),
        format!(":80@{canary}/x"),
        format!("ftp://{canary}/x"),
        format!("gopher://{canary}/x"),
        "file:///etc/passwd".into(),
        "http://169.254.169.254/latest/meta-data".into(),
        "http://[::ffff:169.254.169.254]/x".into(),
        "http://0x7f000001/api/x".into(),
        "http:///api/x".into(),
        "http:/api/x".into(),
        "http:api/x".into(),
        "*".into(),
        "api/x".into(),
        "?x".into(),
        "".into(),
    ] {
        let outcome = attack.run(get(&target, "")).await;
        let first = outcome.statuses()[0];
        assert!(matches!(first, 400 | 404 | 421), "{target}: {}", outcome.text);
        assert!(outcome.lines().iter().all(|line| *line == "GET /last"), "{target}");
    }
    for (method, target) in [
        ("CONNECT", canary.to_string()),
        ("CONNECT", "/api/x".into()),
        ("CONNECT", format!("http://{canary}/")),
        ("TRACE", "/api/x".into()),
    ] {
        let bytes = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let outcome = attack.run(bytes).await;
        assert!(matches!(outcome.statuses()[..], [405 | 501]), "{method}: {}", outcome.text);
        assert!(outcome.lines().is_empty(), "{method} {target}");
    }
    for fields in [
        format!("X-Forwarded-Host: {canary}\r\n"),
        format!("X-Host: {canary}\r\n"),
        format!("X-Original-URL: http://{canary}/x\r\n"),
        format!("X-Rewrite-URL: http://{canary}/x\r\n"),
        format!("Forwarded: host={canary}\r\n"),
        format!("Referer: http://{canary}/\r\n"),
        format!("X-Forwarded-Proto: https\r\nX-Forwarded-Port: {}\r\n", canary.port()),
    ] {
        let seen = attack.served(&fields, get("/api/x", &fields), "GET /x").await;
        assert_eq!(seen.all("host"), [attack.origin.addr.to_string()], "{fields}");
    }
    let host = format!("GET /api/x HTTP/1.1\r\nHost: {canary}\r\n\r\n");
    let outcome = attack.run(host).await;
    assert!(outcome.seen.iter().all(|seen| seen.all("host") == [attack.origin.addr.to_string()]));
}

#[tokio::test]
async fn an_absolute_target_of_a_configured_upstream_or_of_forbear_itself_is_served() {
    let attack = Attack::start().await;
    let (own, origin) = (attack.forbear.proxy(), attack.origin.addr);
    for (target, line) in [
        (format!("http://{origin}/x?y"), "GET /x?y"),
        (format!("HTTP://{origin}/x"), "GET /x"),
        (format!("http://{origin}"), "GET /"),
        (format!("http://{own}/api/x"), "GET /x"),
        (format!("http://localhost:{}/api/x", own.port()), "GET /x"),
    ] {
        let seen = attack.served(&target, get(&target, ""), line).await;
        assert_eq!(seen.all("host"), [origin.to_string()], "{target}");
    }
}

#[tokio::test]
async fn a_path_that_somebody_could_resolve_elsewhere_is_refused() {
    let attack = Attack::start().await;
    for path in [
        "/api/..",
        "/api/../x",
        "/api/./x",
        "/api/.",
        "/./api/x",
        "/../api/x",
        "/api/x/..",
        "/api/%2e%2e/x",
        "/api/%2E%2E/x",
        "/api/.%2e/x",
        "/api/%2e./x",
        "/api/%2e/x",
        "/api/..%2fx",
        "/api/%2e%2e%2fx",
        "/api/..%5cx",
        "/api/..\\x",
        "/api\\..\\x",
        "/api/..;/x",
        "/api/..;a=b/x",
        "/api/.;/x",
        "/api%2f..%2fx",
        "/api%2fx",
        "/api%5cx",
        "/%2e%2e/api/x",
        "/api/%00",
        "/api/x%0d%0aX:y",
        "/api/%7f",
        "//api/x",
        "/other/x",
        "/apix",
        "/ap",
        "/API/x",
        "/api;x",
        "/api;/x",
        "/api%",
        "/api%2",
        "/%2fapi/x",
        "/",
    ] {
        let outcome = attack.run(get(path, "")).await;
        let first = outcome.statuses()[0];
        assert!(matches!(first, 400 | 404), "{path}: {}", outcome.text);
        assert!(outcome.lines().iter().all(|line| *line == "GET /last"), "{path}");
    }
}

#[tokio::test]
async fn path_and_query_arrive_byte_for_byte() {
    let attack = Attack::start().await;
    for (path, forwarded) in [
        ("/api", "/"),
        ("/api/", "/"),
        ("/api?", "/?"),
        ("/api?a=b", "/?a=b"),
        ("/%61pi/x", "/x"),
        ("/api/a%2Fb", "/a%2Fb"),
        ("/api/a%2fb%5cc", "/a%2fb%5cc"),
        ("/api/%252e%252e/x", "/%252e%252e/x"),
        ("/api/a;b=c/d", "/a;b=c/d"),
        ("/api/a//b", "/a//b"),
        ("/api/...", "/..."),
        ("/api/..a/.b", "/..a/.b"),
        ("/api/%E4%F6?%zz&&==??/../%2e", "/%E4%F6?%zz&&==??/../%2e"),
        ("/api/:@!$&'()*+,=-._~", "/:@!$&'()*+,=-._~"),
        ("/api/x?q=/?:@!$&'()*+,;=-._~%20", "/x?q=/?:@!$&'()*+,;=-._~%20"),
        ("/api/{a}|[b]\"?{c}|[d]\\^`", "/{a}|[b]\"?{c}|[d]\\^`"),
        ("/api/http://evil/x", "/http://evil/x"),
        ("/api/@evil", "/@evil"),
        ("/api/x?a#b", ""),
    ] {
        if forwarded.is_empty() {
            attack.refused(path, get(path, ""), 400).await;
        } else {
            attack.served(path, get(path, ""), &format!("GET {forwarded}")).await;
        }
    }
    for byte in (0x21..0x7f_u8).filter(|byte| !b"#\"<>\\^`?".contains(byte)) {
        let char = char::from(byte);
        let line = format!("GET /a{char}b?c{char}d");
        attack.served(&line, get(&format!("/api/a{char}b?c{char}d"), ""), &line).await;
    }
}

#[tokio::test]
async fn a_base_path_cannot_be_left_and_the_longest_prefix_wins() {
    let (one, two) = (StrictOrigin::start().await, StrictOrigin::start().await);
    let forbear = Forbear::start(&format!(
        "{PLAIN}[upstreams.api]\nurl = \"http://{}/base\"\n[upstreams.deep]\nprefix = \"/api/deep\"\nurl = \"http://{}\"\n",
        one.addr, two.addr
    ));
    for (path, first, second) in [
        ("/api/x", vec!["GET /base/x"], vec![]),
        ("/api", vec!["GET /base"], vec![]),
        ("/api?q", vec!["GET /base?q"], vec![]),
        ("/api//x", vec![], vec![]),
        ("/api/deepx", vec!["GET /base/deepx"], vec![]),
        ("/api/deep/x", vec![], vec!["GET /x"]),
        ("/api/%64eep/x", vec![], vec!["GET /x"]),
        ("/api/deep%2fx", vec![], vec![]),
        ("/api/../x", vec![], vec![]),
        ("/api/%2e%2e/x", vec![], vec![]),
        ("/api/deep/..%2f..%2fx", vec![], vec![]),
    ] {
        let mut client = crate::support::raw::RawClient::connect(forbear.proxy()).await;
        let status = client.ask(get(path, "")).await.status;
        let lines = |origin: &StrictOrigin| {
            origin.take().into_iter().map(|seen| seen.line).collect::<Vec<_>>()
        };
        assert_eq!((lines(&one), lines(&two)), (strings(&first), strings(&second)), "{path}");
        assert_eq!(status == 200, first.len() + second.len() == 1, "{path}: {status}");
    }
    // An absolute target of the same origin must lie within the base path.
    for (path, status) in [("/base/x", 200), ("/basex", 404), ("/x", 404), ("/base/../x", 400)] {
        let mut client = crate::support::raw::RawClient::connect(forbear.proxy()).await;
        let target = format!("http://{}{path}", one.addr);
        let got = client.ask(get(&target, "")).await.status;
        let seen = one.take();
        assert_eq!(seen.len(), usize::from(status == 200), "{path}");
        assert!(got == status || (status != 200 && matches!(got, 400 | 404)), "{path}: {got}");
    }
}

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|one| (*one).to_owned()).collect()
}
