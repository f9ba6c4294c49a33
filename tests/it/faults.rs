//! Peers that fail. The client never gets something that looks whole when it is not, the next
//! request on a connection is never poisoned, and whoever leaves is noticed at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::forbear::Forbear;
use crate::support::raw::{End, Move, RawClient, RawOrigin};
use crate::support::strict::PLAIN;

const GET: &str = "GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n";
const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

async fn before(scripts: Vec<Vec<Move>>) -> (Forbear, RawOrigin) {
    let origin = RawOrigin::start(scripts).await;
    let forbear = Forbear::start(&format!(
        "{PLAIN}[upstreams.api]\nurl = \"{}\"\nattempt_timeout = \"1s\"\nidle_timeout = \"1s\"\n",
        origin.url()
    ));
    (forbear, origin)
}

/// Answers once like this; later connections are good.
fn once(steps: Vec<Move>) -> Vec<Vec<Move>> {
    let first = [vec![Move::AwaitHead], steps].concat();
    vec![first, vec![Move::AwaitHead, Move::text(GOOD), Move::AwaitEof]]
}

/// The next exchange is served by another connection and gets its own answer.
async fn next_is_good(name: &str, forbear: &Forbear, origin: &RawOrigin) {
    let mut client = RawClient::connect(forbear.proxy()).await;
    let next = client.ask(GET).await;
    assert_eq!((next.status, next.text().as_str()), (200, "good"), "{name}: the next exchange");
    assert_eq!(origin.connections(), 2, "{name}: the faulty connection was used again");
}

#[tokio::test]
async fn a_response_that_is_no_valid_http_is_a_502_and_its_connection_is_not_used_again() {
    let many = (0..5_000).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let answers = [
        "garbage\r\n\r\n".to_owned(),
        "\0\x01\x02\x03\r\n\r\n".to_owned(),
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 abc OK\r\n\r\n".to_owned(),
        "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 999 High\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\nabcde".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nabcd".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabcd".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabcd".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabcd".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabcd".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(100 << 10)),
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000),
    ];
    for answer in answers {
        let name = &answer[..answer.len().min(90)];
        let (forbear, origin) = before(once(vec![Move::text(&answer), Move::AwaitEof])).await;
        let mut client = RawClient::connect(forbear.proxy()).await;
        let got = client.ask(GET).await;
        assert_eq!(got.status, 502, "{name:?}: {}", got.head);
        origin.until_ended(0).await;
        next_is_good(name, &forbear, &origin).await;
    }
}

#[tokio::test]
async fn an_endless_head_is_cut_by_its_bound() {
    let endless = Move::WriteSlowly {
        bytes: [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: yyyyyyyyyyyyy\r\n".repeat(8_000)].concat(),
        piece: 4_096,
        pause: Duration::ZERO,
    };
    let (forbear, origin) = before(once(vec![endless, Move::AwaitEof])).await;
    let got = RawClient::connect(forbear.proxy()).await.ask(GET).await;
    assert_eq!(got.status, 502, "{}", got.text());
    next_is_good("an endless head", &forbear, &origin).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
    for (answer, old_too) in [
        (format!("{sized}short"), true),
        (format!("{chunked}5\r\nhello"), true),
        (format!("{chunked}5\r\nhello\r\n"), true),
        (format!("{chunked}5\r\nhello\r\n0\r\n"), true),
        (format!("{chunked}5\r\nhello\r\nzz\r\n"), true),
        (format!("{chunked}5\r\nhelloXX0\r\n\r\n"), true),
        (format!("{chunked}fffffffffffffffff\r\nhello"), true),
        (format!("{chunked}5\r\nhello\r\n-1\r\n"), true),
    ] {
        for version in ["1.1", "1.0"].iter().take(1 + usize::from(old_too)) {
            for end in [Move::Close, Move::Reset] {
                let how = format!("{answer:?} {end:?} HTTP/{version}");
                let (forbear, origin) = before(once(vec![Move::text(&answer), end])).await;
                let mut client = RawClient::connect(forbear.proxy()).await;
                client.send(GET.replace("1.1", version)).await;
                let (rest, ended) = client.rest().await;
                let text = String::from_utf8_lossy(&rest).into_owned();
                if text.starts_with("HTTP/1.1 502") || text.starts_with("HTTP/1.0 502") {
                    continue;
                }
                assert!(!text.ends_with("0\r\n\r\n"), "{how}: {text}");
                let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                });
                let framed = head.to_ascii_lowercase().contains("transfer-encoding: chunked")
                    || length.is_some_and(|length: usize| length > body.len());
                assert!(framed || ended == End::Reset, "{how}: looks whole: {text:?} {ended:?}");
                next_is_good(&how, &forbear, &origin).await;
            }
        }
    }
}

#[tokio::test]
async fn a_reset_at_any_byte_of_the_response_is_seen() {
    let whole =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello world";
    for at in (0..whole.len()).step_by(3) {
        for end in [Move::Reset, Move::Close] {
            let how = format!("{at} bytes, {end:?}");
            let (forbear, origin) = before(once(vec![Move::text(&whole[..at]), end])).await;
            let mut client = RawClient::connect(forbear.proxy()).await;
            client.send(GET).await;
            let (rest, _) = client.rest_or_answer().await;
            let text = String::from_utf8_lossy(&rest).into_owned();
            assert!(
                text.starts_with("HTTP/1.1 502")
                    || (text.contains("content-length: 11") && !text.ends_with("hello world")),
                "{how}: {text}"
            );
            next_is_good(&how, &forbear, &origin).await;
        }
    }
}

#[tokio::test]
async fn surplus_bytes_never_become_the_next_answer() {
    let stale = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSTALE";
    for (method, answer, body) in [
        ("GET", format!("{GOOD}{stale}"), "good"),
        ("GET", format!("{GOOD}xyz"), "good"),
        ("GET", format!("{GOOD}\r\n\r\n"), "good"),
        ("GET", format!("HTTP/1.1 204 No Content\r\n\r\n{stale}"), ""),
        ("GET", format!("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody{stale}"), ""),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nbody{stale}"), ""),
        ("GET", format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nbody{stale}"), ""),
        (
            "GET",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n{stale}"
            ),
            "good",
        ),
        (
            "GET",
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n{stale}"
            ),
            "good",
        ),
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody{stale}"), ""),
        (
            "HEAD",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n{stale}"
            ),
            "",
        ),
    ] {
        let (forbear, origin) = before(once(vec![Move::text(&answer), Move::AwaitEof])).await;
        let mut client = RawClient::connect(forbear.proxy()).await;
        client.send(GET.replace("GET", method)).await;
        let got = if method == "HEAD" {
            client.response_to_head().await
        } else {
            client.response().await
        };
        assert!(matches!(got.status, 200 | 204 | 304), "{answer:?}: {}", got.head);
        assert_eq!(got.text(), body, "{answer:?}");
        // On the same connection of the client, too.
        let next = client.ask(GET).await;
        assert_eq!((next.status, next.text().as_str()), (200, "good"), "{method} {answer:?}");
        assert_eq!(origin.connections(), 2, "{answer:?}");
    }
}

#[tokio::test]
async fn bytes_on_an_idle_connection_are_not_an_answer() {
    let late = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSTALE";
    let first = vec![
        Move::AwaitHead,
        Move::text(GOOD),
        Move::WriteSlowly { bytes: b"".to_vec(), piece: 1, pause: Duration::ZERO },
        Move::text(late),
        Move::AwaitEof,
    ];
    let (forbear, origin) =
        before(vec![first, vec![Move::AwaitHead, Move::text(GOOD), Move::AwaitEof]]).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    assert_eq!(client.ask(GET).await.text(), "good");
    origin.until_ended(0).await;
    assert_eq!(client.ask(GET).await.text(), "good");
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn two_lengths_that_agree_are_one_and_a_body_to_the_end_is_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\ngood",
        "HTTP/1.1 200 OK\r\n\r\ngood",
        "HTTP/1.0 200 OK\r\n\r\ngood",
        "HTTP/1.1 200\r\nContent-Length: 4\r\n\r\ngood",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood",
    ] {
        let (forbear, _origin) = before(once(vec![Move::text(answer), Move::Close])).await;
        let mut client = RawClient::connect(forbear.proxy()).await;
        client.send(GET).await;
        let mut got = client.response().await;
        while got.status < 200 {
            got = client.response().await;
        }
        assert_eq!((got.status, got.text().as_str()), (200, "good"), "{answer:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_hangs_or_is_not_there_is_told_as_such() {
    let (forbear, origin) = before(once(vec![Move::AwaitEof])).await;
    assert_eq!(RawClient::connect(forbear.proxy()).await.ask(GET).await.status, 504);
    next_is_good("hang", &forbear, &origin).await;
    let (forbear, _origin) = before(vec![vec![Move::Reset]]).await;
    assert_eq!(RawClient::connect(forbear.proxy()).await.ask(GET).await.status, 502);
    let (forbear, _origin) = before(vec![vec![Move::Close]]).await;
    assert_eq!(RawClient::connect(forbear.proxy()).await.ask(GET).await.status, 502);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let forbear = Forbear::start(&format!("{PLAIN}[upstreams.api]\nurl = \"http://{nobody}\"\n"));
    let got = RawClient::connect(forbear.proxy()).await.ask(GET).await;
    assert_eq!(got.status, 502);
    assert!(got.text().contains("upstream_unreachable"), "{}", got.text());
}

#[tokio::test]
async fn a_body_that_stalls_is_cut_visibly() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let (forbear, origin) = before(once(vec![Move::text(head), Move::AwaitEof])).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send(GET).await;
    let (rest, _) = client.rest().await;
    assert!(String::from_utf8_lossy(&rest).ends_with("hello"));
    origin.until_ended(0).await;
    next_is_good("stall", &forbear, &origin).await;
}

#[tokio::test]
async fn an_early_answer_to_an_upload_comes_through_and_the_rest_is_no_request() {
    let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let (forbear, origin) = before(once(vec![Move::text(answer), Move::AwaitEof])).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send("POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc").await;
    let got = client.response().await;
    assert_eq!((got.status, got.text().as_str()), (403, "no"));
    client.send(GET).await;
    client.closed().await;
    origin.until_ended(0).await;
    assert!(!origin.received_text(0).contains("GET"), "{}", origin.received_text(0));
    next_is_good("early answer", &forbear, &origin).await;
}

#[tokio::test]
async fn an_upstream_attempt_ends_at_once_when_its_client_resets() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    for (name, request, steps) in [
        ("waiting for the head", GET, vec![Move::AwaitEof]),
        ("within the body", GET, vec![Move::text(head), Move::AwaitEof]),
        (
            "within the upload",
            "POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
            vec![Move::AwaitEof],
        ),
        (
            "within chunks",
            "POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            vec![Move::AwaitEof],
        ),
        (
            "with a request behind",
            "GET /api/x HTTP/1.1\r\nHost: a\r\n\r\nGET /api/y HTTP/1.1\r\nHost: a\r\n\r\n",
            vec![Move::AwaitEof],
        ),
    ] {
        for resets in [true, false] {
            let (forbear, origin) = before(once(steps.clone())).await;
            let mut client = RawClient::connect(forbear.proxy()).await;
            client.send(request).await;
            origin.until_received(0, "\r\n\r\n").await;
            if name == "within the body" {
                client.until_text("hello").await;
            }
            let left = Instant::now();
            if resets {
                client.reset();
            } else {
                drop(client);
            }
            origin.until_ended(0).await;
            let took = left.elapsed();
            // 100 ms is the promise; the rest is for a busy machine, far below the time limits.
            assert!(took < Duration::from_millis(500), "{name}, reset {resets}: {took:?}");
            assert!(!origin.received_text(0).contains("/y"));
            next_is_good(name, &forbear, &origin).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_head_leaves_nothing_behind() {
    let (forbear, origin) =
        before(vec![vec![Move::AwaitHead, Move::text(GOOD), Move::AwaitEof]]).await;
    for at in 0..GET.len() {
        let mut client = RawClient::connect(forbear.proxy()).await;
        client.send(&GET[..at]).await;
        if at % 2 == 0 {
            client.finish().await;
            let (rest, _) = client.rest().await;
            let text = String::from_utf8_lossy(&rest).into_owned();
            assert!(rest.is_empty() || text.starts_with("HTTP/1.1 400"), "{at}: {text}");
        } else {
            client.reset();
        }
    }
    assert_eq!(origin.connections(), 0);
    assert_eq!(RawClient::connect(forbear.proxy()).await.ask(GET).await.text(), "good");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_silent_client_and_a_slow_head_are_closed_in_time() {
    let (forbear, origin) = before(vec![vec![]]).await;
    let (mut silent, mut slow) =
        (RawClient::connect(forbear.proxy()).await, RawClient::connect(forbear.proxy()).await);
    slow.send("GET /api/x HTTP/1.1\r\nHo").await;
    let begun = Instant::now();
    assert_eq!(slow.response().await.status, 408);
    silent.closed().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(origin.connections(), 0);
}
