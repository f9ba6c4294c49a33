//! Fields that belong to one connection stay on it, forbear's own vocabulary is its own, and a
//! request that passed a forbear already is told so.

use crate::support::forbear::Forbear;
use crate::support::raw::{Move, RawClient, RawOrigin, RawResponse};
use crate::support::strict::{Attack, PLAIN};

fn get(fields: &str) -> String {
    format!("GET /api/x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

#[tokio::test]
async fn fields_of_the_clients_connection_do_not_go_up() {
    let attack = Attack::start().await;
    for (fields, gone) in [
        ("Connection: x-hop\r\nX-Hop: 1\r\n", vec!["x-hop", "connection"]),
        ("Connection: keep-alive, X-Hop\r\nx-hop: 1\r\n", vec!["x-hop"]),
        ("Connection: a\r\nConnection: b, c\r\nA: 1\r\nB: 2\r\nC: 3\r\n", vec!["a", "b", "c"]),
        ("Connection: ,, x-hop ,\r\nX-Hop: 1\r\n", vec!["x-hop"]),
        ("Connection: X-HOP\r\nx-hop: 1\r\nX-Hop: 2\r\n", vec!["x-hop"]),
        ("Connection: cookie\r\nCookie: a=b\r\n", vec!["cookie"]),
        ("Keep-Alive: timeout=5\r\n", vec!["keep-alive"]),
        ("Proxy-Connection: keep-alive\r\n", vec!["proxy-connection"]),
        ("Proxy-Authorization: Basic x\r\n", vec!["proxy-authorization"]),
        ("Proxy-Authenticate: Basic\r\n", vec!["proxy-authenticate"]),
        ("TE: trailers\r\n", vec!["te"]),
        ("TE: gzip;q=0.5\r\nConnection: te\r\n", vec!["te"]),
        ("Trailer: x\r\n", vec!["trailer"]),
        (
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n",
            vec!["upgrade", "http2-settings", "connection"],
        ),
        ("Upgrade: TLS/1.2\r\nConnection: Upgrade\r\n", vec!["upgrade", "connection"]),
        ("Upgrade: websocket\r\n", vec!["upgrade", "connection"]),
        ("Forbear-Run: r\r\nForbear-Priority: low\r\n", vec!["forbear-run", "forbear-priority"]),
    ] {
        let seen = attack.served(fields, get(fields), "GET /x").await;
        for name in gone {
            assert!(seen.all(name).is_empty(), "{fields:?}: {name} went up: {:?}", seen.fields);
        }
    }
}

#[tokio::test]
async fn connection_cannot_take_out_what_must_stay() {
    let attack = Attack::start().await;
    for name in ["Host", "Content-Length", "Authorization", "Idempotency-Key", "Via", "close, host"]
    {
        let fields = format!(
            "Connection: keep-alive, {name}\r\nAuthorization: Bearer x\r\nIdempotency-Key: k\r\n\
             Content-Length: 3\r\n\r\nabc"
        );
        let bytes = format!("POST /api/x HTTP/1.1\r\nHost: localhost\r\n{fields}");
        let outcome = attack.run(bytes).await;
        let seen = &outcome.seen[0];
        assert_eq!(seen.all("host"), [attack.origin.addr.to_string()], "{name}");
        assert_eq!(seen.all("content-length"), ["3"], "{name}");
        assert_eq!(seen.body, b"abc", "{name}");
        assert_eq!(seen.all("authorization"), ["Bearer x"], "{name}");
        assert_eq!(seen.all("idempotency-key"), ["k"], "{name}");
        assert_eq!(seen.all("via"), ["1.1 forbear"], "{name}");
    }
}

#[tokio::test]
async fn an_injected_credential_replaces_what_the_client_sent_and_cannot_be_named_away() {
    let settings = "[upstreams.api.credential]\nheader = \"x-api-key\"\nfile = \"{file}\"\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    let settings = settings.replace("{file}", &file.path().display().to_string());
    let attack = Attack::with(&settings).await;
    for fields in [
        "X-Api-Key: mine\r\n",
        "X-API-KEY: mine\r\nx-api-key: again\r\n",
        "Connection: x-api-key\r\nX-Api-Key: mine\r\n",
    ] {
        let seen = attack.served(fields, get(fields), "GET /x").await;
        assert_eq!(seen.all("x-api-key"), ["s3cret"], "{fields:?}");
    }
}

#[tokio::test]
async fn a_request_that_passed_forbear_already_is_a_loop() {
    let attack = Attack::start().await;
    for via in ["1.1 forbear", "1.0 a, 1.1 forbear (x)", "HTTP/1.1 FORBEAR", "2 forbear"] {
        attack.declined(via, get(&format!("Via: {via}\r\n")), 508).await;
    }
    for via in ["1.1 other", "1.1 forbear2", "forbear 1.1"] {
        let seen = attack.served(via, get(&format!("Via: {via}\r\n")), "GET /x").await;
        assert_eq!(seen.all("via"), [via, "1.1 forbear"]);
    }
}

#[tokio::test]
async fn a_faulty_own_field_is_refused_by_its_name() {
    let attack = Attack::start().await;
    for fields in [
        "Forbear-Wait: soon\r\n",
        "Forbear-Deadline: -1\r\n",
        "Forbear-Priority: urgent\r\n",
        "Forbear-Retry: yes\r\n",
        "Forbear-Whatever: x\r\n",
        "Forbear-Key: a\r\nForbear-Key: b\r\nForbear-Key: c\r\nForbear-Key: d\r\nForbear-Key: e\r\n",
    ] {
        let outcome = attack.run(get(fields)).await;
        assert_eq!(outcome.statuses(), [400, 200], "{fields:?}: {}", outcome.text);
        let name = fields.split(':').next().unwrap().to_lowercase();
        assert!(outcome.answers[0].1.contains(&name), "{fields:?}: {}", outcome.text);
    }
}

/// What a client gets of an origin's answer with these fields.
async fn relayed(head: &str) -> RawResponse {
    let answer = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 2\r\n\r\nok");
    let origin =
        RawOrigin::start(vec![vec![Move::AwaitHead, Move::text(&answer), Move::AwaitEof]]).await;
    let forbear = Forbear::start(&format!("{PLAIN}[upstreams.api]\nurl = \"{}\"\n", origin.url()));
    let mut client = RawClient::connect(forbear.proxy()).await;
    let response = client.ask(get("")).await;
    assert_eq!((response.status, response.text().as_str()), (200, "ok"), "{head:?}");
    response
}

#[tokio::test]
async fn fields_of_the_upstreams_connection_and_forged_ones_do_not_come_down() {
    for (head, gone) in [
        ("Connection: x-hop\r\nX-Hop: 1\r\n", "x-hop"),
        ("Connection: close, X-Hop\r\nX-Hop: 1\r\n", "x-hop"),
        ("Connection: set-cookie\r\nSet-Cookie: a=b\r\n", "set-cookie"),
        ("Keep-Alive: timeout=5\r\n", "keep-alive"),
        ("Proxy-Connection: keep-alive\r\n", "proxy-connection"),
        ("Proxy-Authenticate: Basic\r\n", "proxy-authenticate"),
        ("Upgrade: h2c\r\n", "upgrade"),
        ("Upgrade: websocket\r\nConnection: upgrade\r\n", "upgrade"),
        ("TE: trailers\r\n", "te"),
        ("Forbear-Verdict: permanent\r\n", "forbear-verdict"),
        ("Forbear-Anything: x\r\n", "forbear-anything"),
        ("Forbear-Retry-At: 2000-01-01T00:00:00Z\r\n", "forbear-retry-at"),
    ] {
        let response = relayed(head).await;
        assert_eq!(response.field(gone), None, "{head:?}: {}", response.head);
    }
    let response = relayed(
        "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nForbear-Upstream: evil\r\nForbear-Request-Id: evil\r\nVia: 1.1 up\r\n",
    )
    .await;
    let all = |name: &str| -> Vec<&str> {
        let same = response.fields.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(all("forbear-upstream"), ["api"]);
    assert_eq!(all("forbear-request-id").len(), 1);
    assert!(!response.head.contains("evil"), "{}", response.head);
    assert_eq!(all("via"), ["1.1 up", "1.1 forbear"]);
}
