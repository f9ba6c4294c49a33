//! Time, upgrades, closing, and HTTP/2, over in-memory pipes and a paused clock.

use http_body_util::Empty;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;

use super::*;
use crate::serve::watchdog::WRITE_STALL_MAX;

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
const UPGRADE: &str =
    "GET /tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: odd\r\n\r\n";

/// Virtual time that passes until the other side closes, with the statuses that came.
#[expect(clippy::disallowed_methods, reason = "the paused clock of the test")]
async fn until_closed(line: &mut Line) -> (Duration, Vec<u16>) {
    let start = Instant::now();
    let statuses = line.statuses().await;
    (start.elapsed(), statuses)
}

/// Timers have a resolution of a millisecond.
#[track_caller]
fn about(found: Duration, expected: Duration) {
    assert!(found.abs_diff(expected) <= Duration::from_millis(10), "{found:?}, not {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_exchange_gives_back_what_it_held_and_hurts_nobody_else() {
    let mut line = connect();
    for path in ["/bug", "/late-bug"] {
        line.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        line.recorder.dropped.notified().await;
    }
    line.send(LAST).await;
    assert_eq!(line.statuses().await, [500, 500, 200]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_closes_quietly_after_the_header_timeout() {
    let (after, statuses) = until_closed(&mut connect()).await;
    about(after, TIMEOUTS.header);
    assert!(statuses.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_head_must_be_whole_within_its_timeout_and_is_answered_408() {
    for start in ["G", "GET / HTTP/1.1\r\nHost: x\r\n", "PRI * HTTP/2.0", "PRI"] {
        let mut line = connect();
        line.send(start).await;
        let (after, statuses) = until_closed(&mut line).await;
        about(after, TIMEOUTS.header);
        assert_eq!(statuses, [408], "{start:?}");
        assert!(line.recorder.lines().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_has_no_more_time_than_one_that_stops() {
    let line = connect();
    let (mut reader, mut writer) = tokio::io::split(line.client);
    let trickle = async {
        for byte in GET.as_bytes().iter().cycle() {
            if writer.write_all(&[*byte, b'a'][..1]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let mut bytes = Vec::new();
    tokio::select! {
        () = trickle => panic!("the other side closed before it answered"),
        read = reader.read_to_end(&mut bytes) => { read.unwrap(); }
    }
    assert_eq!(statuses(&bytes), [408]);
    line.session.abort();
}

#[tokio::test(start_paused = true)]
async fn a_second_head_has_the_same_timeout_as_the_first() {
    let mut line = connect();
    line.send(GET).await;
    line.response().await;
    line.send("GET /b").await;
    let (after, statuses) = until_closed(&mut line).await;
    about(after, TIMEOUTS.header);
    assert_eq!(statuses, [408]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closes_after_the_keep_alive_timeout() {
    let short = Timeouts { keep_alive: Duration::from_secs(1), ..TIMEOUTS };
    for timeouts in [TIMEOUTS, short] {
        let mut line = connect_with(timeouts, 65536);
        line.send(GET).await;
        line.response().await;
        let (after, statuses) = until_closed(&mut line).await;
        about(after, timeouts.keep_alive);
        assert!(statuses.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dormant_connection_serves_the_next_request_as_if_nothing_had_been() {
    let mut line = connect();
    for _ in 0..3 {
        line.send(format!("{GET}\r\n")).await;
        assert!(line.response().await.contains("200 OK"));
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    line.send("GET /a HTTP/1.1\r\nHost : x\r\n\r\n").await;
    assert_eq!(line.statuses().await, [400]);
    assert_eq!(line.recorder.lines(), ["GET /a"; 3]);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_may_take_longer_than_every_timeout_of_the_connection() {
    let mut line = connect();
    line.send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await;
    line.recorder.arrived.notified().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    line.recorder.release.notify_one();
    assert!(line.response().await.contains("200 OK"));
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_ends_the_exchange_also_when_more_was_pipelined() {
    for behind in ["", GET, "GET /half"] {
        let mut line = connect();
        line.send(format!("GET /held HTTP/1.1\r\nHost: x\r\n\r\n{behind}")).await;
        line.recorder.arrived.notified().await;
        drop(line.client);
        line.recorder.dropped.notified().await;
        line.session.await.unwrap();
        assert!(line.recorder.saw().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_an_accepted_upgrade_is_not_http() {
    let mut line = connect();
    line.send(format!("{UPGRADE}\n\0 anything")).await;
    assert!(line.response().await.starts_with("HTTP/1.1 101"));
    line.send(" at all").await;
    line.client.shutdown().await.unwrap();
    let mut echo = String::new();
    line.client.read_to_string(&mut echo).await.unwrap();
    assert_eq!(echo, "echo \n\0 anything at all");
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_declined_upgrade_is_http_and_waits_for_the_answer() {
    let mut line = connect();
    let declined = UPGRADE.replace("/tunnel", "/held");
    line.send(format!("{declined}{GET}GET /b HTTP/1.1\r\nHost : x\r\n\r\n")).await;
    line.recorder.arrived.notified().await;
    assert!(line.recorder.lines().is_empty());
    line.recorder.release.notify_one();
    assert_eq!(line.statuses().await, [200, 200, 400]);
    assert_eq!(line.recorder.lines(), ["GET /held", "GET /a"]);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_needs_http_1_1_both_fields_and_a_protocol_of_today() {
    for request in [
        UPGRADE.replace("HTTP/1.1", "HTTP/1.0"),
        UPGRADE.replace("Connection: Upgrade\r\n", ""),
        UPGRADE.replace("odd", "h2c"),
        UPGRADE.replace("Upgrade: odd\r\n", ""),
    ] {
        let mut line = connect();
        line.send(&request).await;
        assert!(line.response().await.contains("200 OK"), "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_request_with_a_body_hands_over_what_is_behind_the_body() {
    let mut line = connect();
    let request = UPGRADE.replace("GET", "POST").replace("Host", "Content-Length: 3\r\nHost");
    line.send(format!("{request}abctunnelled")).await;
    assert!(line.response().await.starts_with("HTTP/1.1 101"));
    line.client.shutdown().await.unwrap();
    let mut echo = String::new();
    line.client.read_to_string(&mut echo).await.unwrap();
    assert_eq!(echo, "echo tunnelled");
    assert_eq!(line.recorder.saw()[0].body, b"abc");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_still_sends_can_read_the_answer_before_the_end() {
    // The pipe is smaller than what is sent: closing without reading on would block the client.
    let line = connect_with(TIMEOUTS, 1024);
    let (mut reader, mut writer) = tokio::io::split(line.client);
    let send = async {
        writer.write_all(b"POST / HTTP/1.1\r\nHost : x\r\n\r\n").await?;
        writer.write_all(&vec![b'x'; 500_000]).await
    };
    let mut bytes = Vec::new();
    let (sent, read) = tokio::join!(send, reader.read_to_end(&mut bytes));
    assert!(sent.is_ok() && read.is_ok(), "{sent:?} {read:?}");
    assert_eq!(statuses(&bytes), [400]);
    line.session.abort();
}

#[tokio::test(start_paused = true)]
async fn lingering_ends_by_time() {
    let mut line = connect();
    line.send("GET / HTTP/1.1\r\nHost : x\r\n\r\n").await;
    let (_, statuses) = until_closed(&mut line).await;
    assert_eq!(statuses, [400]);
    // The client keeps its side open, and the session ends nevertheless.
    tokio::time::timeout(Duration::from_secs(2), line.session).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_cut_off_and_a_slow_one_is_not() {
    let mut line = connect_with(TIMEOUTS, 1024);
    line.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut piece = [0; 64];
    for _ in 0..10 {
        tokio::time::sleep(WRITE_STALL_MAX.mul_f32(0.9)).await;
        line.client.read_exact(&mut piece).await.unwrap();
    }
    assert!(!line.session.is_finished());
    tokio::time::timeout(WRITE_STALL_MAX * 2, line.session).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_idle_connections_and_answers_what_has_begun() {
    let drain = |line: &Line| line.orders.send_modify(|o| o.connections = Connections::Close);

    let mut idle = connect();
    idle.send(GET).await;
    idle.response().await;
    drain(&idle);
    assert!(idle.statuses().await.is_empty());

    let mut busy = connect();
    busy.send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await;
    busy.recorder.arrived.notified().await;
    drain(&busy);
    busy.recorder.release.notify_one();
    assert!(busy.response().await.contains("connection: close"));
    assert!(busy.statuses().await.is_empty());

    let mut half = connect();
    half.send("GET /a HTTP/1.1\r\nHost").await;
    tokio::task::yield_now().await;
    drain(&half);
    tokio::time::sleep(Duration::from_secs(1)).await;
    half.send(": x\r\n\r\n").await;
    assert!(half.response().await.contains("connection: close"));
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_a_connection_and_its_exchange() {
    let mut line = connect();
    line.send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await;
    line.recorder.arrived.notified().await;
    line.orders.send_modify(|orders| orders.connections = Connections::Abort);
    line.recorder.dropped.notified().await;
    line.session.await.unwrap();
}

type Http2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

async fn http2(line: Line) -> (Http2, JoinHandle<hyper::Result<()>>, Recorder) {
    let io = TokioIo::new(line.client);
    let (send, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    // Whoever gives orders stays for as long as the connection.
    let orders = line.orders;
    let driver = async move {
        let end = driver.await;
        drop(orders);
        end
    };
    (send, tokio::spawn(driver), line.recorder)
}

#[tokio::test(start_paused = true)]
async fn http2_is_spoken_by_prior_knowledge_and_cookies_become_one() {
    let line = connect();
    let connection = line.connection.clone();
    let (mut send, _driver, recorder) = http2(line).await;
    for _ in 0..2 {
        let request = http::Request::get("http://x/a?b").body(Empty::new()).unwrap();
        assert_eq!(send.send_request(request).await.unwrap().status(), 200);
    }
    assert_eq!(recorder.lines(), ["GET http://x/a?b"; 2]);
    assert_eq!(connection.protocol(), Protocol::Http2);
    let request = http::Request::get("http://x/a").header("host", "y").body(Empty::new()).unwrap();
    assert_eq!(send.send_request(request).await.unwrap().status(), 400);
    assert_eq!(recorder.lines().len(), 2);
}

#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "the paused clock of the test")]
async fn an_idle_http2_connection_closes_after_the_keep_alive_timeout() {
    let (mut send, driver, _) = http2(connect()).await;
    let request = http::Request::get("http://x/a").body(Empty::new()).unwrap();
    assert_eq!(send.send_request(request).await.unwrap().status(), 200);
    let start = Instant::now();
    driver.await.unwrap().unwrap();
    about(start.elapsed(), TIMEOUTS.keep_alive);
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_that_stops_behind_its_preface_closes() {
    let mut line = connect();
    line.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let (after, _) = until_closed(&mut line).await;
    assert!(after <= TIMEOUTS.keep_alive + Duration::from_secs(6), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_sends_goaway_and_finishes_what_runs() {
    let line = connect();
    let orders = line.orders.clone();
    let (mut send, driver, recorder) = http2(line).await;
    let request = http::Request::get("http://x/held").body(Empty::new()).unwrap();
    let response = tokio::spawn(send.send_request(request));
    recorder.arrived.notified().await;
    orders.send_modify(|orders| orders.connections = Connections::Close);
    tokio::time::sleep(Duration::from_secs(1)).await;
    recorder.release.notify_one();
    assert_eq!(response.await.unwrap().unwrap().status(), 200);
    driver.await.unwrap().unwrap();
}
