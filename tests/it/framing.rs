//! Attacks on the framing and syntax of HTTP/1.1 requests: each is answered once and ends its
//! connection, and the origin sees nothing of it, nor of what stands behind it.

use crate::support::raw::RawClient;
use crate::support::strict::Attack;

fn post(fields: &str, body: &str) -> String {
    format!("POST /api/x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
}

#[tokio::test]
async fn a_message_whose_length_is_in_doubt_is_refused_and_ends_the_connection() {
    let attack = Attack::start().await;
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: -0\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length: \"5\"\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 5e0\r\n",
        "Content-Length: \r\n",
        "Content-Length:\r\n",
        "Content-Length: \u{665}\r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 18446744073709551621\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        " Content-Length: 5\r\n",
        "X: y\r\n Content-Length: 5\r\n",
        "Content-Length:\r\n 5\r\n",
        "Content-Length: 5\r\n 5\r\n",
        "Content-Length: 5\n",
        "Content-Length: 5\r",
        "Content-Length: 5\0\r\n",
        "Content-Length: \x0b5\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chun ked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: chunked\x0c\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding: chunked\u{a0}\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\x0b: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: x\r\n",
        "\0Transfer-Encoding: chunked\r\n",
        ": x\r\n",
        "no colon\r\n",
        "X(: y\r\n",
        "X: a\0b\r\n",
        "X: a\x7fb\r\n",
        "X: a\x1bb\r\n",
    ] {
        let outcome = attack.run(post(fields, "0\r\n\r\n")).await;
        assert_eq!(outcome.statuses(), [400], "{fields:?}: {}", outcome.text);
        assert!(outcome.lines().is_empty(), "{fields:?}: {:?}", outcome.seen);
        let closes = outcome.text.to_ascii_lowercase().contains("connection: close");
        assert!(closes, "{fields:?}: {}", outcome.text);
    }
}

#[tokio::test]
async fn an_old_request_has_a_length_or_no_body() {
    let attack = Attack::start().await;
    for fields in [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: identity\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
    ] {
        let bytes = format!("POST /api/x HTTP/1.0\r\nHost: a\r\n{fields}\r\n0\r\n\r\n");
        attack.refused(fields, bytes, 400).await;
    }
    let bytes = "POST /api/x HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc";
    let seen = attack.served("a length", bytes, "POST /x").await;
    assert_eq!(seen.body, b"abc");
    // Without a length there is no body: what follows is the next request.
    let bytes = "POST /api/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    attack.served("no length", bytes, "POST /x").await;
    let alone = attack.run("GET /api/x HTTP/1.0\r\n\r\n").await;
    assert_eq!(alone.statuses(), [200], "an old connection closes unless it is asked to stay");
    assert_eq!(alone.lines(), ["GET /x"]);
}

#[tokio::test]
async fn what_is_legal_passes_as_one_request_with_its_body() {
    let attack = Attack::start().await;
    for (name, bytes, line, body) in [
        ("a length", post("Content-Length: 5\r\n", "hello"), "POST /x", "hello"),
        ("leading zeros", post("Content-Length: 005\r\n", "hello"), "POST /x", "hello"),
        ("blanks around", post("Content-Length: \t 5 \t\r\n", "hello"), "POST /x", "hello"),
        ("chunks", post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), "POST /x", "hello"),
        ("capitals", post("TRANSFER-ENCODING: CHUNKED\r\n", "0\r\n\r\n"), "POST /x", ""),
        ("a body that looks like a request", post("Content-Length: 27\r\n", "GET /api/evil HTTP/1.1\r\n\r\nx"), "POST /x", "GET /api/evil HTTP/1.1\r\n\r\nx"),
        ("an empty line before it", format!("\r\n{}", post("Content-Length: 1\r\n", "x")), "POST /x", "x"),
        ("GET with a body", "GET /api/g HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".into(), "GET /g", "abc"),
        ("DELETE in chunks", "DELETE /api/d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n".into(), "DELETE /d", "z"),
        ("lower-case method", "get /api/x HTTP/1.1\r\nHost: a\r\n\r\n".into(), "get /x", ""),
        ("an unknown method", "M-SEARCH /api/x HTTP/1.1\r\nHost: a\r\n\r\n".into(), "M-SEARCH /x", ""),
        ("an empty value", "GET /api/x HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n".into(), "GET /x", ""),
        ("bytes above ASCII in a value", "GET /api/x HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n".into(), "GET /x", ""),
    ] {
        let seen = attack.served(name, bytes, line).await;
        assert_eq!(String::from_utf8_lossy(&seen.body), body, "{name}");
    }
}

#[tokio::test]
async fn a_request_line_has_one_form_only() {
    let attack = Attack::start().await;
    for (line, status) in [
        ("GET /api/x", 400),
        ("GET /api/x HTTP/0.9", 505),
        ("GET /api/x HTTP/1.2", 505),
        ("GET /api/x HTTP/2.0", 505),
        ("GET /api/x HTTP/3.0", 505),
        ("GET /api/x HTTP/11", 400),
        ("GET /api/x HTTP/1.11", 400),
        ("GET /api/x HTTP/1,1", 400),
        ("GET /api/x HTTP/ 1.1", 400),
        ("GET /api/x http/1.1", 400),
        ("GET /api/x HTTPS/1.1", 400),
        ("GET /api/x\tHTTP/1.1", 400),
        ("GET\t/api/x HTTP/1.1", 400),
        ("GET  /api/x HTTP/1.1", 400),
        ("GET /api/x  HTTP/1.1", 400),
        (" GET /api/x HTTP/1.1", 400),
        ("GET /api/x HTTP/1.1 ", 400),
        ("GET /api/x HTTP/1.1 GET", 400),
        ("GET /api/x y HTTP/1.1", 400),
        ("G\0T /api/x HTTP/1.1", 400),
        ("GET /api/\0 HTTP/1.1", 400),
        ("GET /api/\x7f HTTP/1.1", 400),
        ("GET /api/\u{e9} HTTP/1.1", 400),
        ("GET: /api/x HTTP/1.1", 400),
        ("GE,T /api/x HTTP/1.1", 400),
        ("GET /api/x#f HTTP/1.1", 400),
        ("GET\r /api/x HTTP/1.1", 400),
        ("PRI * HTTP/2.0", 505),
    ] {
        let bytes = format!("{line}\r\nHost: localhost\r\n\r\n");
        attack.refused(line, bytes, status).await;
    }
    let method = format!("{} /api/x HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(4_000));
    attack.refused("a long method", method, 501).await;
    for (name, bytes) in [
        ("bare LF", "GET /api/x HTTP/1.1\nHost: a\n\n"),
        ("bare LF behind the request line", "GET /api/x HTTP/1.1\nHost: a\r\n\r\n"),
        ("bare LF at the end", "GET /api/x HTTP/1.1\r\nHost: a\r\n\n"),
        ("bare CR", "GET /api/x HTTP/1.1\rHost: a\r\r"),
        ("CR CR LF", "GET /api/x HTTP/1.1\r\r\nHost: a\r\n\r\n"),
        ("many empty lines", "\r\n\r\n\r\n\r\nGET /api/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("TLS", "\x16\x03\x01\x00\x05hello\r\n\r\n"),
        ("a response", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("SSH", "SSH-2.0-OpenSSH_9.2\r\n"),
    ] {
        attack.refused(name, bytes, 400).await;
    }
}

#[tokio::test]
async fn a_request_names_one_valid_host() {
    let attack = Attack::start().await;
    for fields in [
        "",
        "Host:\r\n",
        "Host: \r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a, b\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: user@a\r\n",
        "Host: http://a\r\n",
        "Host: a:b\r\n",
        "Host: a:-1\r\n",
        "Host: a:65536\r\n",
        "Host: a:80:80\r\n",
        "Host: [::1\r\n",
        "Host: [::1]a\r\n",
        "Host: ::1\r\n",
        "Host: a\\b\r\n",
        "Host: a\"\r\n",
        "Host: <a>\r\n",
        "Host : a\r\n",
        " Host: a\r\n",
        "Host: a\r\n b\r\n",
        "Host: a\0\r\n",
        "Host: \u{e9}\r\n",
    ] {
        let bytes = format!("GET /api/x HTTP/1.1\r\n{fields}X: y\r\n\r\n");
        attack.refused(fields, bytes, 400).await;
    }
}

#[tokio::test]
async fn every_bound_on_a_head_holds_and_is_named_in_the_answer() {
    let attack = Attack::start().await;
    let head = |fields: &str| format!("GET /api/x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    attack.served("128 fields", head(&many(127)), "GET /x").await;
    let big = |len: usize| head(&format!("X: {}\r\n", "y".repeat(len)));
    attack.served("60 KiB", big(60 << 10), "GET /x").await;
    let path = |len: usize| format!("GET /api/{} HTTP/1.1\r\nHost: a\r\n\r\n", "p".repeat(len));
    attack.served("16,000 bytes", path(16_000), &format!("GET /{}", "p".repeat(16_000))).await;
    for (name, bytes, status, said) in [
        ("129 fields", head(&many(128)), 431, "128"),
        ("5,000 fields", head(&many(5_000)), 431, "128"),
        ("a value of 64 KiB", big(64 << 10), 431, "65536"),
        ("a value of 1 MiB", big(1 << 20), 431, "65536"),
        ("a name of 70 KiB", head(&format!("{}: y\r\n", "n".repeat(70 << 10))), 431, "65536"),
        ("a target of 17 KiB", path(17 << 10), 414, "16384"),
        ("a target of 1 MiB", path(1 << 20), 414, "16384"),
    ] {
        let outcome = attack.run(bytes).await;
        assert_eq!(outcome.statuses(), [status], "{name}: {}", outcome.text);
        assert!(outcome.lines().is_empty(), "{name}");
        assert!(outcome.answers[0].1.contains(said), "{name}: {}", outcome.text);
    }
}

#[tokio::test]
async fn how_a_head_is_cut_into_packets_changes_nothing() {
    let attack = Attack::start().await;
    for (bytes, statuses) in [
        (post("Content-Length: 3\r\n", "abc"), vec![200, 200]),
        (post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"), vec![200, 200]),
        (post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), vec![400]),
    ] {
        let mut client = RawClient::connect(attack.forbear.proxy()).await;
        client.send_pieces(bytes.as_bytes().chunks(1)).await;
        client.send(crate::support::strict::LAST).await;
        let (rest, _) = client.rest().await;
        let got: Vec<u16> =
            crate::support::strict::answers(&rest).into_iter().map(|(status, _)| status).collect();
        assert_eq!(got, statuses, "{bytes:?}");
        assert_eq!(attack.origin.take().len(), if got.len() == 2 { 2 } else { 0 });
    }
}
