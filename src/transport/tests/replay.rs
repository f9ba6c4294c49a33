//! The replayable body: what is sent again is what was sent, whatever the pieces and moments.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use proptest::prelude::*;
use tokio::io::DuplexStream;

use super::*;
use crate::transport::body::RequestBodyError;
use crate::transport::{BodyFault, ReplayState, timer};

/// A body made of steps.
pub(super) struct Script(pub(super) VecDeque<Step>);

#[derive(Clone, Debug)]
pub(super) enum Step {
    Piece(Bytes),
    Trailers(HeaderMap),
    /// Nothing yet, but soon.
    Pause,
    /// Nothing, and nobody will say so.
    Stall,
    /// Nothing for this long.
    Sleep(Duration),
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Piece(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            Some(Step::Trailers(fields)) => Poll::Ready(Some(Ok(Frame::trailers(fields)))),
            Some(Step::Pause) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Stall) => {
                self.0.push_front(Step::Stall);
                Poll::Pending
            }
            Some(Step::Sleep(span)) => {
                let waker = cx.waker().clone();
                tokio::spawn(async move {
                    tokio::time::sleep(span).await;
                    waker.wake();
                });
                Poll::Pending
            }
        }
    }
}

pub(super) fn source(steps: impl IntoIterator<Item = Step>) -> Source {
    let body = Script(steps.into_iter().collect());
    Source::Scripted(body.map_err(Into::into).boxed())
}

pub(super) fn scripted(pieces: Vec<&'static str>, trailer: Option<(&str, &str)>) -> Source {
    let trailer = trailer.map(|(name, value)| {
        let name = HeaderName::try_from(name).unwrap();
        Step::Trailers(HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())]))
    });
    source(pieces.into_iter().map(|piece| Step::Piece(piece.into())).chain(trailer))
}

pub(super) fn stalled_after(piece: &'static str) -> Source {
    source([Step::Piece(piece.into()), Step::Stall])
}

fn kept(source: Source, per_exchange_max: u64, memory_max: u64) -> (Replay, Arc<ReplayMemory>) {
    let memory = Arc::new(ReplayMemory::new(memory_max));
    (Replay::new(source, per_exchange_max, memory.clone(), Duration::from_secs(10)), memory)
}

async fn whole(body: RequestBody) -> (Bytes, Option<HeaderMap>) {
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    (collected.to_bytes(), trailers)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    /// Each attempt but the last is given up after some frames; every one sends a prefix of the
    /// body, and the last one all of it.
    #[test]
    fn every_attempt_sends_the_same_bytes_wherever_the_one_before_stopped(
        pieces in prop::collection::vec(
            prop_oneof![
                3 => prop::collection::vec(any::<u8>(), 1..40),
                1 => prop::collection::vec(any::<u8>(), 4000..9000),
            ],
            0..20,
        ),
        pauses in prop::collection::vec(any::<bool>(), 20),
        has_trailers in any::<bool>(),
        stops in prop::collection::vec(0usize..25, 0..5),
    ) {
        let expected: Vec<u8> = pieces.concat();
        let trailers = HeaderMap::from_iter([(
            HeaderName::from_static("x-sum"),
            HeaderValue::from_static("1"),
        )]);
        let mut steps = Vec::new();
        for (piece, pause) in pieces.into_iter().zip(pauses) {
            steps.extend(pause.then_some(Step::Pause));
            steps.push(Step::Piece(piece.into()));
        }
        steps.extend(has_trailers.then(|| Step::Trailers(trailers.clone())));
        let (replay, memory) = kept(source(steps), 1 << 20, 1 << 20);

        runtime().block_on(async {
            for stop in stops {
                let mut body = replay.attempt().unwrap();
                let mut sent = Vec::new();
                for _ in 0..stop {
                    let Some(frame) = body.frame().await else { break };
                    sent.extend(frame.unwrap().into_data().unwrap_or_default());
                }
                prop_assert!(expected.starts_with(&sent));
            }
            let (bytes, sent_trailers) = whole(replay.attempt().unwrap()).await;
            prop_assert_eq!(&bytes[..], &expected[..]);
            prop_assert_eq!(sent_trailers, has_trailers.then_some(trailers));
            prop_assert_eq!(replay.bytes_seen(), expected.len() as u64);
            prop_assert_eq!(memory.used(), expected.len() as u64);
            prop_assert!(replay.ended());
            Ok(())
        })?;
        drop(replay);
        prop_assert_eq!(memory.used(), 0);
    }

    /// Over the bound, the attempt that streams gets every byte and no other attempt begins.
    #[test]
    fn over_a_bound_the_body_streams_on_whole_and_is_not_repeated(
        lengths in prop::collection::vec(1usize..600, 1..12),
        per_exchange_max in 0u64..3000,
        memory_max in 0u64..3000,
    ) {
        let pieces: Vec<Bytes> = lengths.iter().map(|n| Bytes::from(vec![7; *n])).collect();
        let total: usize = lengths.iter().sum();
        let (replay, memory) =
            kept(source(pieces.into_iter().map(Step::Piece)), per_exchange_max, memory_max);

        runtime().block_on(async {
            let (bytes, _) = whole(replay.attempt().unwrap()).await;
            prop_assert_eq!(bytes.len(), total);
            prop_assert!(memory.used() <= per_exchange_max.min(memory_max));
            let fits = total as u64 <= per_exchange_max.min(memory_max);
            prop_assert_eq!(replay.state() == ReplayState::Ready, fits);
            prop_assert_eq!(replay.attempt().is_some(), fits);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn an_older_attempt_fails_as_soon_as_a_newer_one_begins() {
    let (replay, _) = kept(stalled_after("part"), 100, 100);
    let mut old = replay.attempt().unwrap();
    old.frame().await.unwrap().unwrap();
    let waiting = tokio::spawn(async move { old.frame().await.unwrap().map(|_| ()) });
    tokio::task::yield_now().await;

    let mut new = replay.attempt().unwrap();

    assert_eq!(waiting.await.unwrap(), Err(RequestBodyError::Revoked));
    let first = new.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "part");
}

#[tokio::test]
async fn the_memory_of_the_process_is_shared_and_given_back() {
    let memory = Arc::new(ReplayMemory::new(10));
    let body = |text: &'static str| {
        Replay::new(Source::Full(text.into()), 100, memory.clone(), Duration::from_secs(1))
    };
    let (first, second) = (body("12345678"), body("12345678"));

    whole(first.attempt().unwrap()).await;
    whole(second.attempt().unwrap()).await;
    assert_eq!((first.state(), second.state()), (ReplayState::Ready, ReplayState::Streamed));

    first.discard();
    assert_eq!(memory.used(), 0);
    assert!(first.attempt().is_none(), "what was let go is not sent again");
    let third = body("12345678");
    whole(third.attempt().unwrap()).await;
    assert_eq!(third.state(), ReplayState::Ready);
}

#[tokio::test]
async fn letting_go_in_the_middle_of_a_repeat_loses_nothing() {
    let (replay, memory) = kept(scripted(vec!["one", "two", "three"], None), 100, 100);
    let mut first = replay.attempt().unwrap();
    first.frame().await;
    first.frame().await;
    let second = replay.attempt().unwrap();

    replay.discard();

    assert_eq!(whole(second).await.0, "onetwothree");
    assert_eq!(memory.used(), 0);
}

#[tokio::test]
async fn a_known_length_is_announced_to_every_attempt() {
    let replay = replay_of(Source::Full("12345".into()));
    for _ in 0..2 {
        let body = replay.attempt().unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
        whole(body).await;
    }
    assert!(replay_of(Source::Empty).attempt().unwrap().is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_trickles_is_cut_though_every_piece_is_in_time() {
    let steps =
        (0..100).flat_map(|_| [Step::Sleep(Duration::from_secs(9)), Step::Piece("x".into())]);
    let (replay, _) = kept(source(steps), 1000, 1000);
    let start = timer::now();

    let outcome = replay.attempt().unwrap().collect().await.map(|_| ());

    assert_eq!(outcome, Err(BodyFault::TooSlow.into()));
    assert_eq!(timer::now().duration_since(start).as_secs(), 18);
}

#[tokio::test(start_paused = true)]
async fn draining_ends_at_its_bounds() {
    let drain = |source, bytes_max| async move {
        let (replay, memory) = kept(source, 1000, 1000);
        let ended = replay.drain(bytes_max, Duration::from_secs(1)).await;
        assert_eq!(memory.used(), 0);
        ended
    };
    assert!(drain(Source::Empty, 0).await);
    assert!(drain(scripted(vec!["12345", "67890"], None), 10).await);
    assert!(!drain(scripted(vec!["12345", "67890", "1"], None), 9).await);
    assert!(!drain(stalled_after("12345"), 10).await);
}

/// What a server of hyper makes of raw request bytes, drained.
async fn received(raw: &'static [u8], closes: bool) -> Option<BodyFault> {
    let (mut client, server): (DuplexStream, DuplexStream) = tokio::io::duplex(4096);
    let (tell, told) = tokio::sync::mpsc::channel(1);
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let tell = tell.clone();
        async move {
            let (replay, _) = kept(Source::Incoming(request.into_body()), 1000, 1000);
            let _ = replay.attempt().unwrap().collect().await;
            tell.send(replay.fault()).await.unwrap();
            Ok::<_, Infallible>(Response::new(http_body_util::Empty::<Bytes>::new()))
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .serve_connection(hyper_util::rt::TokioIo::new(server), service);
    let mut told = told;
    tokio::spawn(serving);
    client.write_all(raw).await.unwrap();
    if closes {
        client.shutdown().await.unwrap();
    }
    told.recv().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn bad_framing_is_told_apart_from_a_client_that_left() {
    let head: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(received(head, false).await, Some(BodyFault::Malformed));
    let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf";
    assert_eq!(received(head, true).await, Some(BodyFault::ClientGone));
    assert_eq!(received(head, false).await, Some(BodyFault::TooSlow));
    let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nfull";
    assert_eq!(received(head, false).await, None);
}
