//! HTTP/2 from the downstream side, frame by frame: what is malformed ends its stream or the
//! connection and never becomes a request in HTTP/1.1, and floods end the flooder.

use crate::support::frames::{
    ACK, Answer, CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameClient, GOAWAY, HEADERS, PING,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, request,
};
use crate::support::strict::Attack;

/// Sends one request of these fields and says what came of it.
async fn ask(attack: &Attack, fields: &[(&[u8], &[u8])]) -> Answer {
    let mut client = FrameClient::connect(attack.forbear.proxy()).await;
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(fields))).await;
    client.answer(1).await
}

/// The usual request, with one field replaced or added.
fn with<'a>(name: &'a [u8], value: &'a [u8]) -> Vec<(&'a [u8], &'a [u8])> {
    let mut fields: Vec<(&[u8], &[u8])> = vec![
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"localhost"),
        (b":path", b"/api/x"),
    ];
    match fields.iter_mut().find(|(it, _)| *it == name) {
        Some(field) => field.1 = value,
        None => fields.push((name, value)),
    }
    fields
}

fn is_refused(answer: &Answer) -> bool {
    match answer {
        Answer::Whole(status, _) => (400..=599).contains(status),
        Answer::Reset(_) | Answer::Goaway(_) => true,
        Answer::Closed => false,
    }
}

#[tokio::test]
async fn a_good_request_is_one_good_request_above() {
    let attack = Attack::start().await;
    let fields =
        [with(b"cookie", b"a=1"), vec![(b"cookie", b"b=2"), (b"te", b"trailers")]].concat();
    assert_eq!(ask(&attack, &fields).await, Answer::Whole(200, "GET /x".into()));
    let seen = attack.origin.take();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].all("cookie"), ["a=1; b=2"]);
    assert_eq!(seen[0].all("host"), [attack.origin.addr.to_string()]);
    assert_eq!(seen[0].all("via"), ["2.0 forbear"]);
}

#[tokio::test]
async fn what_could_not_be_written_as_http_1_is_refused() {
    let attack = Attack::start().await;
    let cases: [(&[u8], &[u8]); 53] = [
        (b"x", b"a\r\nInjected: y"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x", b" a"),
        (b"x", b"a\t"),
        (b"x\r\ny", b"a"),
        (b"x y", b"a"),
        (b"x:y", b"a"),
        (b"", b"a"),
        (b"X", b"a"),
        (b"x\0", b"a"),
        (b"x\xff", b"a"),
        (b"connection", b"close"),
        (b"connection", b"x"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"identity"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
        (b"te", b"trailers, gzip"),
        (b"content-length", b"+0"),
        (b"content-length", b"x"),
        (b"content-length", b"5"),
        (b"content-length", b"0, 0"),
        (b"host", b"other"),
        (b":path", b""),
        (b":path", b"api/x"),
        (b":path", b"*"),
        (b":path", b"/api/x y"),
        (b":path", b"/api/x HTTP/1.1\r\nHost: evil\r\n\r\n"),
        (b":path", b"/api/x\ty"),
        (b":path", b"/api/../y"),
        (b":path", b"/api/%2e%2e/y"),
        (b":path", b"//api/x"),
        (b":path", b"/apix"),
        (b":path", b"http://localhost/api/x"),
        (b":path", b"/api\\x"),
        (b":method", b""),
        (b":method", b"GE T"),
        (b":method", b"GET\r\n"),
        (b":method", b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\nGET"),
        (b":method", b"CONNECT"),
        (b":method", b"TRACE"),
        (b":scheme", b""),
        (b":scheme", b"ht tp"),
        (b":authority", b""),
        (b":authority", b"a b"),
        (b":authority", b"user@localhost"),
        (b":authority", b"a\r\nb"),
        (b":protocol", b"websocket"),
        (b":status", b"200"),
    ];
    for (name, value) in cases {
        let shown = format!("{}: {}", name.escape_ascii(), value.escape_ascii());
        let answer = ask(&attack, &with(name, value)).await;
        assert!(is_refused(&answer), "{shown}: {answer:?}");
        assert!(attack.origin.take().is_empty(), "{shown}");
    }
}

#[tokio::test]
async fn pseudo_fields_come_first_once_and_complete() {
    let attack = Attack::start().await;
    let good = with(b"x", b"y");
    let mut cases = vec![
        ("twice :path", [good.clone(), vec![(&b":path"[..], &b"/api/z"[..])]].concat()),
        (
            "twice host",
            [good.clone(), vec![(b"host", b"localhost"), (b"host", b"localhost")]].concat(),
        ),
        ("unknown", [vec![(&b":evil"[..], &b"x"[..])], good.clone()].concat()),
        ("behind a field", [vec![(&b"a"[..], &b"b"[..])], good.clone()].concat()),
    ];
    for missing in [&b":method"[..], b":path", b":scheme"] {
        let left = good.iter().copied().filter(|(name, _)| *name != missing).collect();
        cases.push(("one is missing", left));
    }
    let none = good.iter().copied().filter(|(name, _)| *name != b":authority").collect();
    cases.push(("no authority", none));
    for (name, fields) in cases {
        let answer = ask(&attack, &fields).await;
        assert!(is_refused(&answer), "{name}: {answer:?}");
        assert!(attack.origin.take().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_body_agrees_with_its_length_or_its_stream_ends() {
    let attack = Attack::start().await;
    for (length, pieces, fits) in [
        (Some("5"), &["hello"][..], true),
        (Some("5"), &["he", "llo"], true),
        (None, &["hello"], true),
        (Some("5"), &["hell"], false),
        (Some("5"), &["hello!"], false),
        (Some("0"), &["x"], false),
        (Some("5"), &[""], false),
    ] {
        let mut client = FrameClient::connect(attack.forbear.proxy()).await;
        let mut fields = request("POST", "/api/x");
        fields.extend(length.map(|length| ("content-length", length)));
        client.send(frame(HEADERS, END_HEADERS, 1, block(&fields))).await;
        for (n, piece) in pieces.iter().enumerate() {
            let flags = if n + 1 == pieces.len() { END_STREAM } else { 0 };
            client.send(frame(DATA, flags, 1, piece)).await;
        }
        let answer = client.answer(1).await;
        let seen = attack.origin.take();
        if fits {
            assert_eq!(answer, Answer::Whole(200, "POST /x".into()), "{length:?} {pieces:?}");
            assert_eq!(seen[0].body, b"hello");
        } else {
            assert!(is_refused(&answer), "{length:?} {pieces:?}: {answer:?}");
            assert!(seen.is_empty(), "{length:?} {pieces:?}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn trailers_are_no_head() {
    let attack = Attack::start().await;
    for (fields, fits) in [
        (&[("x-checksum", "abc")][..], true),
        (&[("x", "a\r\nb")], false),
        (&[("connection", "close")], false),
        (&[("transfer-encoding", "chunked")], false),
    ] {
        let mut client = FrameClient::connect(attack.forbear.proxy()).await;
        client.send(frame(HEADERS, END_HEADERS, 1, block(&request("POST", "/api/x")))).await;
        client.send(frame(DATA, 0, 1, "hello")).await;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(fields))).await;
        let answer = client.answer(1).await;
        let seen = attack.origin.take();
        assert_eq!(!is_refused(&answer), fits, "{fields:?}: {answer:?}");
        assert_eq!(seen.len(), usize::from(fits), "{fields:?}: {seen:?}");
    }
    for name in [":path", "content-length", "host", "authorization", "forbear-key", "trailer"] {
        let mut client = FrameClient::connect(attack.forbear.proxy()).await;
        client.send(frame(HEADERS, END_HEADERS, 1, block(&request("POST", "/api/x")))).await;
        client.send(frame(DATA, 0, 1, "hello")).await;
        let trailers = block(&[(name, "1")]);
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, trailers)).await;
        client.answer(1).await;
        for seen in attack.origin.take() {
            assert_eq!(seen.line, "POST /x", "{name}");
            assert!(seen.trailers.is_empty(), "{name} went up as a trailer");
        }
    }
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_the_connection() {
    let attack = Attack::start().await;
    for (name, bytes) in [
        ("DATA on an idle stream", frame(DATA, 0, 1, "x")),
        ("DATA on stream 0", frame(DATA, 0, 0, "x")),
        ("HEADERS on stream 0", frame(HEADERS, END_HEADERS, 0, block(&request("GET", "/api/x")))),
        ("HEADERS on an even stream", get(2, "/api/x")),
        ("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1, [])),
        (
            "a frame within a header block",
            [
                frame(HEADERS, END_STREAM, 1, block(&request("GET", "/api/x"))),
                frame(PING, 0, 0, [0; 8]),
            ]
            .concat(),
        ),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, [0, 0, 0, 2])),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, [0; 4])),
        ("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, [0; 5])),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, [])),
        ("SETTINGS with a huge window", frame(SETTINGS, 0, 0, [0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("SETTINGS with a tiny frame", frame(SETTINGS, 0, 0, [0, 5, 0, 0, 0, 1])),
        ("PING of 7 bytes", frame(PING, 0, 0, [0; 7])),
        ("PING on a stream", frame(PING, 0, 1, [0; 8])),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, [0; 8])),
        ("WINDOW_UPDATE of 0", frame(WINDOW_UPDATE, 0, 0, [0; 4])),
        ("WINDOW_UPDATE beyond the limit", frame(WINDOW_UPDATE, 0, 0, [0x7f, 0xff, 0xff, 0xff])),
        ("a frame that is too large", frame(DATA, 0, 1, vec![0; 20_000])),
        ("a stream id that goes back", [get(5, "/nowhere"), get(3, "/nowhere")].concat()),
        ("HPACK that is none", frame(HEADERS, END_HEADERS | END_STREAM, 1, [0xff; 20])),
        ("an index into nothing", frame(HEADERS, END_HEADERS | END_STREAM, 1, [0xfe])),
        ("padding beyond the frame", frame(DATA, 8, 1, [200, 0])),
        ("HTTP/1.1 in HTTP/2", b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
    ] {
        let mut client = FrameClient::connect(attack.forbear.proxy()).await;
        client.send(bytes).await;
        let answer = client.answer(99).await;
        assert!(matches!(answer, Answer::Goaway(_) | Answer::Closed), "{name}: {answer:?}");
        assert!(attack.origin.take().is_empty(), "{name}");
    }
    let mut client = FrameClient::connect(attack.forbear.proxy()).await;
    client.send(frame(PRIORITY, 0, 7, [0, 0, 0, 0, 1])).await;
    client.send(frame(0x77, 0xff, 9, "an unknown frame is ignored")).await;
    client.send(get(11, "/api/x")).await;
    assert_eq!(client.answer(11).await, Answer::Whole(200, "GET /x".into()));
    attack.origin.take();
}

#[tokio::test]
async fn floods_end_the_flooder_and_nobody_else() {
    let attack = Attack::start().await;
    let continuation = {
        let mut bytes = frame(HEADERS, END_STREAM, 1, block(&request("GET", "/api/x")));
        for _ in 0..2_000 {
            bytes.extend(frame(CONTINUATION, 0, 1, block(&[("x", "y".repeat(100))])));
        }
        bytes
    };
    let rapid_reset: Vec<u8> = (0..2_000)
        .flat_map(|n| {
            [get(2 * n + 1, "/api/x"), frame(RST_STREAM, 0, 2 * n + 1, [0, 0, 0, 8])].concat()
        })
        .collect();
    let made_reset: Vec<u8> = (0..2_000)
        .flat_map(|n| {
            [get(2 * n + 1, "/api/x"), frame(WINDOW_UPDATE, 0, 2 * n + 1, [0; 4])].concat()
        })
        .collect();
    for (name, bytes) in [
        ("CONTINUATION", continuation),
        (
            "empty CONTINUATION",
            [
                frame(HEADERS, END_STREAM, 1, block(&request("GET", "/api/x"))),
                frame(CONTINUATION, 0, 1, []).repeat(10_000),
            ]
            .concat(),
        ),
        ("rapid reset", rapid_reset),
        ("made you reset", made_reset),
    ] {
        let mut client = FrameClient::connect(attack.forbear.proxy()).await;
        client.send(bytes).await;
        let answer = client.answer(999_999).await;
        assert!(matches!(answer, Answer::Goaway(_) | Answer::Closed), "{name}: {answer:?}");
        let count = attack.origin.take().len();
        assert!(count < 1_000, "{name}: {count} requests went up");
        let mut other = FrameClient::connect(attack.forbear.proxy()).await;
        other.send(get(1, "/api/x")).await;
        assert_eq!(other.answer(1).await, Answer::Whole(200, "GET /x".into()), "{name}");
        attack.origin.take();
    }
    for (name, bytes) in [
        ("SETTINGS", frame(SETTINGS, 0, 0, []).repeat(5_000)),
        ("PING", frame(PING, 0, 0, [7; 8]).repeat(5_000)),
        ("PING answers", frame(PING, ACK, 0, [7; 8]).repeat(5_000)),
        ("PRIORITY", frame(PRIORITY, 0, 1, [0, 0, 0, 3, 1]).repeat(5_000)),
        ("unknown frames", frame(0x66, 0, 0, [0; 100]).repeat(5_000)),
    ] {
        let mut client = FrameClient::connect(attack.forbear.proxy()).await;
        client.send(bytes).await;
        client.send(get(1, "/api/x")).await;
        // Survived or ended; never a hang, and never anybody else's trouble.
        let answer = client.answer(1).await;
        assert!(!matches!(answer, Answer::Reset(_)), "{name}: {answer:?}");
        let mut other = FrameClient::connect(attack.forbear.proxy()).await;
        other.send(get(1, "/api/x")).await;
        assert_eq!(other.answer(1).await, Answer::Whole(200, "GET /x".into()), "{name}");
        attack.origin.take();
    }
}

#[tokio::test]
async fn a_large_header_list_is_refused_and_the_bound_holds_for_a_stream_only() {
    let attack = Attack::start().await;
    let big = "y".repeat(10_000);
    let mut client = FrameClient::connect(attack.forbear.proxy()).await;
    let fields = [request("GET", "/api/x"), vec![("a", &big), ("b", &big)]].concat();
    let bytes = block(&fields);
    let (first, second) = bytes.split_at(16_000);
    client.send(frame(HEADERS, END_STREAM, 1, first)).await;
    client.send(frame(CONTINUATION, END_HEADERS, 1, second)).await;
    let answer = client.answer(1).await;
    assert!(is_refused(&answer), "{answer:?}");
    assert!(attack.origin.take().is_empty());
    let names: Vec<String> = (0..140).map(|n| format!("x-{n}")).collect();
    let mut fields = request("GET", "/api/x");
    fields.extend(names.iter().map(|name| (name.as_str(), "y")));
    let mut client = FrameClient::connect(attack.forbear.proxy()).await;
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(&fields))).await;
    let answer = client.answer(1).await;
    assert!(matches!(&answer, Answer::Whole(431, body) if body.contains("128")), "{answer:?}");
    client.send(get(3, "/api/x")).await;
    assert_eq!(client.answer(3).await, Answer::Whole(200, "GET /x".into()));
    assert_eq!(attack.origin.take().len(), 1);
}

#[tokio::test]
async fn a_closed_window_holds_its_own_stream_back_and_no_other_connection() {
    let attack = Attack::start().await;
    let mut client = FrameClient::connect(attack.forbear.proxy()).await;
    client.send(frame(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0])).await;
    client.send(get(1, "/api/x")).await;
    let mut other = FrameClient::connect(attack.forbear.proxy()).await;
    other.send(get(1, "/api/y")).await;
    assert_eq!(other.answer(1).await, Answer::Whole(200, "GET /y".into()));
    client.send(frame(WINDOW_UPDATE, 0, 1, [0, 0, 0xff, 0])).await;
    assert_eq!(client.answer(1).await, Answer::Whole(200, "GET /x".into()));
    attack.origin.take();
}

#[tokio::test]
async fn at_most_so_many_streams_are_open_and_a_reset_one_ends_its_attempt() {
    use crate::support::forbear::Forbear;
    use crate::support::raw::{Move, RawOrigin};
    use crate::support::strict::PLAIN;
    let origin = RawOrigin::start(vec![vec![Move::AwaitHead, Move::AwaitEof]]).await;
    let forbear = Forbear::start(&format!("{PLAIN}[upstreams.api]\nurl = \"{}\"\n", origin.url()));
    let mut client = FrameClient::connect(forbear.proxy()).await;
    client.send(get(1, "/api/x")).await;
    origin.until_received(0, "\r\n\r\n").await;
    let left = tokio::time::Instant::now();
    client.send(frame(RST_STREAM, 0, 1, [0, 0, 0, 8])).await;
    origin.until_ended(0).await;
    assert!(left.elapsed() < std::time::Duration::from_millis(500), "{:?}", left.elapsed());
    forbear.until("no exchange in flight", |it| it.view("api").in_flight == 0).await;
}
