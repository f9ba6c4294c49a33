//! Who may ask what.

use super::*;

const BREAKER: &str = r#"{"state":"open","reason":"maintenance"}"#;
const FORCE: &str = "POST /api/v1/upstreams/github/breaker";

#[tokio::test]
async fn with_a_token_on_loopback_changes_need_it_and_reading_does_not() {
    let fake = Fake::new();
    let served = Served::with(&fake, Some(TOKEN), true);

    let without = served.send(FORCE, &[], BREAKER).await;
    assert_eq!((without.status.as_u16(), without.code().as_str()), (401, "unauthorized"));
    assert_eq!(without.headers["www-authenticate"], "Bearer");
    for wrong in ["Bearer hunter2", "Basic hunter2-the-admin-token", "hunter2-the-admin-token"] {
        assert_eq!(served.send(FORCE, &[("authorization", wrong)], BREAKER).await.status, 401);
    }
    assert_eq!(fake.asked(), [""; 0]);

    assert_eq!(served.send("GET /api/v1/upstreams", &[], "").await.status, 200);
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(served.send(FORCE, &[("authorization", &bearer)], BREAKER).await.status, 200);
    assert_eq!(fake.asked().len(), 1);
}

#[tokio::test]
async fn beyond_loopback_everything_but_probes_and_metrics_needs_the_token() {
    let fake = Fake::new();
    // Without a token nothing but the probes is served, even if such a configuration came through.
    for token in [Some(TOKEN), None] {
        let served = Served::with(&fake, token, false);
        for (line, status) in [
            ("GET /healthz", 200),
            ("GET /readyz", 200),
            ("GET /metrics", 200),
            ("GET /", 401),
            ("GET /api/v1/config", 401),
            ("GET /api/v1/events", 401),
            ("GET /nothing", 401),
            ("POST /api/v1/quit", 401),
        ] {
            let answer = served.send(line, &[("host", "10.0.0.7:8081")], "").await;
            assert_eq!(answer.status, status, "{line} with {token:?}");
        }
    }
    assert_eq!(fake.asked(), [""; 0]);
}

#[tokio::test]
async fn a_renewed_token_replaces_the_old_one_at_once() {
    let fake = Fake::new();
    let access = Arc::new(Access::new(Some(Secret::new("old")), true));
    let served = Served::start(crate::admin::router(
        Arc::clone(&fake) as Arc<dyn Backend>,
        Arc::clone(&access),
    ));
    access.set_token(Some(Secret::new("new")));

    for (token, status) in [("Bearer old", 401), ("Bearer new", 202)] {
        let answer = served.send("POST /api/v1/quit", &[("authorization", token)], "").await;
        assert_eq!(answer.status, status, "{token}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_can_change_nothing() {
    let fake = Fake::new();
    let served = Served::open(&fake);
    for field in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost:3000"),
        ("origin", "https://localhost:8081"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let answer = served.send(FORCE, &[field], BREAKER).await;
        assert_eq!(answer.status, 403, "{field:?}");
        assert_eq!(answer.code(), "forbidden_origin");
    }
    assert_eq!(fake.asked(), [""; 0]);

    let own = [("origin", "http://localhost:8081"), ("sec-fetch-site", "same-origin")];
    assert_eq!(served.send(FORCE, &own, BREAKER).await.status, 200);
}

#[tokio::test]
async fn a_foreign_name_that_points_to_loopback_is_not_answered() {
    let served = Served::open(&Fake::new());
    for path in ["/", "/metrics", "/healthz", "/api/v1/config"] {
        let line = format!("GET {path}");
        let answer = served.send(&line, &[("host", "evil.example:8081")], "").await;
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(answer.code(), "forbidden_host");
    }
    for host in ["127.0.0.1:8081", "[::1]:8081", "forbear.localhost", "LOCALHOST:1"] {
        assert_eq!(served.send("GET /healthz", &[("host", host)], "").await.status, 200, "{host}");
    }
    let absolute = served.send("GET http://evil.example/healthz", &[], "").await;
    assert_eq!(absolute.status, 403);
}

#[tokio::test]
async fn no_answer_may_be_stored_guessed_at_or_framed() {
    let served = Served::with(&Fake::new(), Some(TOKEN), true);
    for line in ["GET /", "GET /metrics", "GET /nothing", "POST /api/v1/quit"] {
        let headers = served.send(line, &[], "").await.headers;
        assert_eq!(headers["cache-control"], "no-store", "{line}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{line}");
        assert_eq!(headers["x-frame-options"], "DENY", "{line}");
        assert!(!headers.contains_key("access-control-allow-origin"), "{line}");
    }
}

#[tokio::test]
async fn no_answer_contains_the_token() {
    let served = Served::with(&Fake::new(), Some(TOKEN), true);
    let given = format!("Bearer {TOKEN}");
    for line in ["GET /", "GET /api/v1/config", "GET /metrics", "POST /api/v1/nothing"] {
        for fields in [&[][..], &[("authorization", given.as_str())]] {
            let answer = served.send(line, fields, "").await;
            assert!(!answer.text().contains(TOKEN), "{line}");
            assert!(!format!("{:?}", answer.headers).contains(TOKEN), "{line}");
        }
    }
}

#[tokio::test]
async fn the_metrics_listener_answers_metrics_and_probes_and_nothing_else() {
    let fake = Fake::new();
    let served = Served::start(crate::admin::metrics_router(Arc::clone(&fake) as Arc<dyn Backend>));
    let host = [("host", "10.0.0.7:9464")];
    for (line, status) in [
        ("GET /metrics", 200),
        ("GET /healthz", 200),
        ("GET /readyz", 200),
        ("GET /", 404),
        ("GET /api/v1/upstreams", 404),
        ("GET /api/v1/config", 404),
        ("POST /api/v1/quit", 404),
        ("POST /metrics", 404),
    ] {
        assert_eq!(served.send(line, &host, "").await.status, status, "{line}");
    }
    assert_eq!(fake.asked(), [""; 0]);
}
