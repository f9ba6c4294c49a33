//! How a stream is cut into reads makes no difference.

use proptest::prelude::*;

use super::*;

const GOOD: &[&str] = &[
    "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "POST /c?d HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: x\r\n\r\n3;e\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n",
    "PUT /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
];

const BAD: &[&str] = &[
    "GET /f HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
    "GET /f HTTP/1.1\nHost: x\n\n",
    "GET /f HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "POST /f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "POST /f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: y\r\n\r\n",
];

async fn outcome(pieces: &[&[u8]]) -> (Vec<u16>, Vec<Seen>) {
    let mut line = connect();
    for piece in pieces {
        // The other side may have closed already; what it has answered still counts.
        let _ = line.client.write_all(piece).await;
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
    // A garbled length can make the rest a body that never ends: then nothing more comes.
    let mut bytes = Vec::new();
    let read = line.client.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(Duration::from_secs(600), read).await;
    (statuses(&bytes), line.recorder.saw())
}

fn on_runtime<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(future)
}

#[test]
fn a_stream_split_in_two_anywhere_gives_the_same() {
    on_runtime(async {
        let good = GOOD.concat() + LAST;
        for stream in BAD.iter().map(|bad| GOOD.concat() + bad + LAST).chain([good]) {
            let bytes = stream.as_bytes();
            let whole = outcome(&[bytes]).await;
            assert!(whole.1.len() >= GOOD.len(), "{whole:?}");
            for at in 0..bytes.len() {
                let (start, end) = bytes.split_at(at);
                assert_eq!(outcome(&[start, end]).await, whole, "split at {at} of {stream:?}");
            }
        }
    });
}

#[test]
fn a_stream_of_single_bytes_gives_the_same() {
    on_runtime(async {
        let stream = GOOD.concat() + LAST;
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(outcome(&bytes).await, outcome(&[stream.as_bytes()]).await);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_any_stream_gives_the_same(
        parts in prop::collection::vec(0..GOOD.len() + BAD.len(), 1..5),
        garbled in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let all: Vec<&str> = GOOD.iter().chain(BAD).copied().collect();
        let mut bytes = parts.iter().map(|part| all[*part]).collect::<String>().into_bytes();
        if let Some((at, byte)) = garbled {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend_from_slice(LAST.as_bytes());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut from = 0;
        let pieces: Vec<&[u8]> = cuts.iter().map(|to| { let piece = &bytes[from..*to]; from = *to; piece }).collect();
        on_runtime(async {
            let (whole, split) = (outcome(&[&bytes]).await, outcome(&pieces).await);
            assert_eq!(whole, split, "{:?}", String::from_utf8_lossy(&bytes));
        });
    }
}
