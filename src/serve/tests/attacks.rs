//! A table of attacks: the bytes, the answer, and that nothing of them leaks into a following request.

use super::*;

/// Sends the bytes and a good request behind them. Expects one answer with that status, the end of the
/// connection, and no exchange for anything.
#[track_caller]
pub(super) fn refused(name: &str, bytes: impl AsRef<[u8]>, status: u16) {
    let (statuses, lines) = run(bytes.as_ref());
    assert_eq!(statuses, [status], "{name}");
    assert_eq!(lines, Vec::<String>::new(), "{name}");
}

/// The same, but it is a good request: both are answered.
#[track_caller]
pub(super) fn accepted(name: &str, bytes: impl AsRef<[u8]>, line: &str) {
    let (statuses, lines) = run(bytes.as_ref());
    assert_eq!(statuses, [200, 200], "{name}");
    assert_eq!(lines, [line, "GET /last"], "{name}");
}

fn run(bytes: &[u8]) -> (Vec<u16>, Vec<String>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(async {
        let mut line = connect();
        line.send(bytes).await;
        line.send(LAST).await;
        let statuses = line.statuses().await;
        (statuses, line.recorder.lines())
    })
}

pub(super) fn with(fields: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

#[test]
fn a_line_ends_with_crlf_and_nothing_else() {
    for (name, bytes) in [
        ("bare LF everywhere", "GET / HTTP/1.1\nHost: x\n\n"),
        ("bare LF behind the request line", "GET / HTTP/1.1\nHost: x\r\n\r\n"),
        ("bare LF behind a field", "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n"),
        ("bare LF as the last line", "GET / HTTP/1.1\r\nHost: x\r\n\n"),
        ("bare CR in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n"),
        ("CR CR LF", "GET / HTTP/1.1\r\r\nHost: x\r\n\r\n"),
        ("NUL in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n"),
        ("NUL in a name", "GET / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n"),
        ("vertical tab in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\x0bc\r\n\r\n"),
        ("DEL in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\x7fc\r\n\r\n"),
        ("folding", "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"),
        ("folding of the first field", "GET / HTTP/1.1\r\n Host: x\r\n\r\n"),
        (
            "folding with a tab",
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n",
        ),
        ("three empty lines", "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("an empty line with a bare LF", "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a TLS greeting", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03"),
    ] {
        refused(name, bytes, 400);
    }
    accepted("two empty lines", "\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a");
}

#[test]
fn a_request_line_has_three_parts_and_two_spaces() {
    for (name, line, status) in [
        ("no version", "GET /", 400),
        ("HTTP/0.9", "GET / HTTP/0.9", 505),
        ("HTTP/1.2", "GET / HTTP/1.2", 505),
        ("HTTP/2.0", "GET / HTTP/2.0", 505),
        ("lower case", "GET / http/1.1", 400),
        ("HTTP/1.10", "GET / HTTP/1.10", 400),
        ("HTTP/01.1", "GET / HTTP/01.1", 400),
        ("two spaces", "GET  / HTTP/1.1", 400),
        ("two spaces before the version", "GET /  HTTP/1.1", 400),
        ("a space at the end", "GET / HTTP/1.1 ", 400),
        ("a space in front", " GET / HTTP/1.1", 400),
        ("tabs", "GET\t/\tHTTP/1.1", 400),
        ("a space in the target", "GET /a b HTTP/1.1", 400),
        ("a method that is no token", "GE(T / HTTP/1.1", 400),
        ("no target", "GET  HTTP/1.1", 400),
        ("a relative target", "GET a HTTP/1.1", 400),
        ("asterisk with GET", "GET * HTTP/1.1", 400),
        ("a fragment", "GET /a#b HTTP/1.1", 400),
        ("a fragment in a query", "GET /a?b#c HTTP/1.1", 400),
        ("a byte above ASCII", "GET /\u{e4} HTTP/1.1", 400),
        ("a backslash", "GET /a\\b HTTP/1.1", 400),
        ("a query alone", "GET ?a HTTP/1.1", 400),
        ("another scheme", "GET ftp://x/ HTTP/1.1", 400),
        ("user information", "GET http://a@b/ HTTP/1.1", 400),
        ("no host", "GET http:/// HTTP/1.1", 400),
        ("CONNECT", "CONNECT x:443 HTTP/1.1", 501),
    ] {
        refused(name, format!("{line}\r\nHost: x\r\n\r\n"), status);
    }
    refused("a long method", format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n", "A".repeat(33)), 501);
    accepted("asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS *");
    accepted(
        "absolute form",
        "GET http://api.test:80/a?b HTTP/1.1\r\nHost: api.test:80\r\n\r\n",
        "GET http://api.test:80/a?b",
    );
}

#[test]
fn a_target_reaches_the_exchange_byte_for_byte() {
    let kept = "/%2e%2e/a//b;c=d/%2F/..%5c/{e}|\"f\"'()!$&+,=:@[]~*?q={a:b}&%zz&??/^`\\|'";
    accepted(
        "odd bytes",
        format!("GET {kept} HTTP/1.1\r\nHost: x\r\n\r\n"),
        &format!("GET {kept}"),
    );
    for byte in 0..=255_u8 {
        for place in ["/", "/?"] {
            let target = [place.as_bytes(), &[byte]].concat();
            if super::super::target::check_path_and_query(&target).is_ok() {
                let uri = http::Uri::try_from(&target[..]).unwrap();
                assert_eq!(uri.to_string().as_bytes(), target, "{byte:02x} in {place}");
            }
        }
    }
}

#[test]
fn a_host_is_there_once_and_is_a_host() {
    for (name, fields) in [
        ("none", ""),
        ("two", "Host: x\r\nHost: x\r\n"),
        ("two in other letters", "Host: x\r\nhOST: y\r\n"),
        ("empty", "Host:\r\n"),
        ("user information", "Host: a@b\r\n"),
        ("a path", "Host: a/b\r\n"),
        ("a list", "Host: a, b\r\n"),
        ("two words", "Host: a b\r\n"),
        ("a port that is none", "Host: a:b\r\n"),
        ("a port too large", "Host: a:65536\r\n"),
        ("a broken IPv6 address", "Host: [::1\r\n"),
        ("an IPv6 address without brackets", "Host: ::1\r\n"),
    ] {
        refused(name, format!("GET / HTTP/1.1\r\n{fields}\r\n"), 400);
    }
    for host in ["x", "a.b-c_d:80", "127.0.0.1:8080", "[::1]", "[::1]:8080"] {
        accepted(host, format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n"), "GET /a");
    }
    let old = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    accepted("none, on 1.0", old, "GET /a");
}

#[test]
fn a_field_has_a_token_a_colon_and_a_value() {
    for (name, field) in [
        ("a space before the colon", "A : b"),
        ("a tab before the colon", "A\t: b"),
        ("a length with a space before the colon", "Content-Length : 5"),
        ("an empty name", ": b"),
        ("no colon", "A b"),
        ("a name with a parenthesis", "A(b: c"),
        ("a name above ASCII", "\u{e4}: b"),
    ] {
        refused(name, with(&format!("{field}\r\n")), 400);
    }
}

#[test]
fn the_end_of_a_message_is_beyond_doubt() {
    for (name, fields) in [
        ("two lengths", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        ("two different lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("a list of lengths", "Content-Length: 5, 5\r\n"),
        ("a signed length", "Content-Length: +5\r\n"),
        ("a negative length", "Content-Length: -5\r\n"),
        ("an empty length", "Content-Length:\r\n"),
        ("a hexadecimal length", "Content-Length: 0x5\r\n"),
        ("a length with a fraction", "Content-Length: 5.0\r\n"),
        ("a length too large", "Content-Length: 9223372036854775808\r\n"),
        ("a length far too large", "Content-Length: 99999999999999999999999\r\n"),
        ("length and coding", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("coding and length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("length zero and coding", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("identity", "Transfer-Encoding: identity\r\n"),
        ("gzip before chunked", "Transfer-Encoding: gzip, chunked\r\n"),
        ("chunked before gzip", "Transfer-Encoding: chunked, gzip\r\n"),
        ("chunked twice in one", "Transfer-Encoding: chunked, chunked\r\n"),
        ("chunked with a parameter", "Transfer-Encoding: chunked;a=b\r\n"),
        ("a misspelt coding", "Transfer-Encoding: xchunked\r\n"),
        ("a quoted coding", "Transfer-Encoding: \"chunked\"\r\n"),
        ("an empty coding", "Transfer-Encoding:\r\n"),
    ] {
        refused(name, with(fields), 400);
    }
    let old = "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    refused("coding on 1.0", old, 400);
    accepted("a length", with("Content-Length: 3\r\n") + "abc", "POST /x");
    accepted("a coding", with("Transfer-Encoding: CHUNKED\r\n") + "0\r\n\r\n", "POST /x");
}

#[test]
fn a_chunk_is_what_it_says() {
    for (name, body) in [
        ("no digits", "\r\n"),
        ("not hexadecimal", "g\r\n"),
        ("a prefix", "0x5\r\nabcde\r\n0\r\n\r\n"),
        ("a sign", "+5\r\nabcde\r\n0\r\n\r\n"),
        ("a space before", " 5\r\nabcde\r\n0\r\n\r\n"),
        ("a space behind", "5 \r\nabcde\r\n0\r\n\r\n"),
        ("seventeen digits", "00000000000000005\r\nabcde\r\n0\r\n\r\n"),
        ("bare LF behind the size", "5\nabcde\r\n0\r\n\r\n"),
        ("bare CR behind the size", "5\rabcde\r\n0\r\n\r\n"),
        ("bare LF in an extension", "5;a\nb\r\nabcde\r\n0\r\n\r\n"),
        ("NUL in an extension", "5;a\0\r\nabcde\r\n0\r\n\r\n"),
        ("data too long", "5\r\nabcdef\r\n0\r\n\r\n"),
        ("data too short", "5\r\nabcd\r\n0\r\n\r\n"),
        ("data ended by LF", "5\r\nabcde\n0\r\n\r\n"),
        ("data ended by two other bytes", "5\r\nabcdeXX0\r\n\r\n"),
        ("the last chunk ended by LF", "0\r\n\n"),
        ("a trailer that frames", "0\r\nContent-Length: 5\r\n\r\n"),
        ("a trailer that authorises", "0\r\nAuthorization: x\r\n\r\n"),
        ("a trailer that names a host", "0\r\nHost: x\r\n\r\n"),
        ("a trailer for forbear", "0\r\nForbear-Key: x\r\n\r\n"),
        ("a trailer with a space", "0\r\nA : b\r\n\r\n"),
        ("a trailer that folds", "0\r\nA: b\r\n c\r\n\r\n"),
        ("a trailer ended by LF", "0\r\nA: b\n\r\n"),
    ] {
        refused(name, with("Transfer-Encoding: chunked\r\n") + body, 400);
    }
    let chunked = with("Transfer-Encoding: chunked\r\n");
    let long = format!("5;{}\r\nabcde\r\n0\r\n\r\n", "a".repeat(5000));
    refused("a long extension", chunked.clone() + &long, 400);
    let many = "1;aaaaaaaaaa\r\nx\r\n".repeat(1000) + "0\r\n\r\n";
    refused("many extensions", chunked.clone() + &many, 400);
    let trailers = "0\r\n".to_owned() + &"A: b\r\n".repeat(33) + "\r\n";
    refused("33 trailers", chunked.clone() + &trailers, 400);
    let trailers = format!("0\r\nA: {}\r\n\r\n", "b".repeat(9000));
    refused("long trailers", chunked.clone() + &trailers, 400);
    accepted(
        "an extension",
        chunked.clone() + "5;a=\"b\"\r\nabcde\r\n0\r\nA: b\r\n\r\n",
        "POST /x",
    );
}
