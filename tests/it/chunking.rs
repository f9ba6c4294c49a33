//! Attacks on chunked request bodies. The origin may have the start of the request by the time
//! that the fault is seen; it must never take it for the whole, nor what follows for a request.

use crate::support::strict::Attack;

fn chunks(body: &str) -> String {
    format!("POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

#[tokio::test]
async fn a_chunk_that_could_be_read_in_two_ways_ends_the_request_and_the_connection() {
    let attack = Attack::start().await;
    let long_line = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(5_000));
    let many_extensions =
        format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "e".repeat(900)).repeat(20));
    let zeros = format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(17));
    let cases = [
        "g\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "1_0\r\nx\r\n0\r\n\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1\t\r\nx\r\n0\r\n\r\n",
        "\r\nx\r\n0\r\n\r\n",
        ";a\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\rx\r\n0\r\n\r\n",
        "1\r\rx\r\n0\r\n\r\n",
        "1\0\r\nx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nx\r0\r\n\r\n",
        "1\r\nxx\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "2\r\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "1;a\rb\r\nx\r\n0\r\n\r\n",
        "1;a=\"\n\"\r\nx\r\n0\r\n\r\n",
        "1;a\0\r\nx\r\n0\r\n\r\n",
        "1;\n\r\nx\r\n0\r\n\r\n",
        "0;\nGET /api/evil HTTP/1.1\r\n\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\n\r\r\n",
        "10000000000000000\r\nx\r\n0\r\n\r\n",
        "10000000000000001\r\nx\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nx\r\n0\r\n\r\n",
        long_line.as_str(),
        many_extensions.as_str(),
        zeros.as_str(),
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: evil\r\n\r\n",
        "0\r\nAuthorization: x\r\n\r\n",
        "0\r\nConnection: close\r\n\r\n",
        "0\r\nForbear-Key: x\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: a\0b\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\n: y\r\n\r\n",
    ];
    for body in cases {
        let outcome = attack.run(chunks(body)).await;
        assert_eq!(outcome.statuses(), [400], "{body:?}: {}", outcome.text);
        assert!(outcome.lines().is_empty(), "{body:?}: {:?}", outcome.seen);
        assert!(outcome.text.to_ascii_lowercase().contains("connection: close"), "{body:?}");
    }
}

#[tokio::test]
async fn bounds_on_trailers_hold_and_are_named() {
    let attack = Attack::start().await;
    let many = (0..33).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    for (body, said) in [
        (format!("0\r\n{many}\r\n"), "32"),
        (format!("0\r\nX: {}\r\n\r\n", "y".repeat(9_000)), "8192"),
        (format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(5_000)), "4096"),
    ] {
        let outcome = attack.run(chunks(&body)).await;
        assert_eq!(outcome.statuses(), [400], "{said}: {}", outcome.text);
        assert!(outcome.lines().is_empty());
        assert!(outcome.answers[0].1.contains(said), "{said}: {}", outcome.text);
    }
}

#[tokio::test]
async fn a_legal_chunked_body_arrives_whole_without_extensions_and_forbidden_trailers() {
    let attack = Attack::start().await;
    for (body, whole) in [
        ("0\r\n\r\n", ""),
        ("000\r\n\r\n", ""),
        ("1\r\nx\r\n0\r\n\r\n", "x"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n", "0123456789x"),
        ("0000000000000001\r\nx\r\n0\r\n\r\n", "x"),
        ("1;a=b;c=\"d\"\r\nx\r\n0;e\r\n\r\n", "x"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
        ("1\r\nx\r\n0\r\nX-Checksum: abc\r\n\r\n", "x"),
    ] {
        let seen = attack.served(body, chunks(body), "POST /x").await;
        assert_eq!(String::from_utf8_lossy(&seen.body), whole, "{body:?}");
    }
}

#[tokio::test]
async fn a_chunked_body_that_stops_is_never_taken_for_the_whole() {
    let attack = Attack::start().await;
    let stop = async |body: &str| {
        let outcome = attack.run_alone(chunks(body)).await;
        assert_eq!(outcome.statuses(), [408], "{body:?}: {}", outcome.text);
        assert!(outcome.lines().is_empty(), "{body:?}: {:?}", outcome.seen);
    };
    // Each waits for the time limit, so they wait together.
    tokio::join!(
        stop(""),
        stop("5\r\n"),
        stop("5\r\nhel"),
        stop("5\r\nhello"),
        stop("5\r\nhello\r\n"),
        stop("0\r\n"),
        stop("0\r\nX: y\r\n"),
    );
}
