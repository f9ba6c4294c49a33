//! `GET /api/v1/events`: changes of state as server-sent events.
//!
//! A reader that does not keep up loses events and is told how many; it never makes the process
//! keep them. The number of readers is bounded, too.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};

use super::Shared;
use super::problem::Problem;
use crate::telemetry::view::EventView;

/// Readers at the same time: a few dashboards, not an audience.
pub(super) const READERS_MAX: usize = 16;
/// Events between the broadcast and a reader's socket; the broadcast has a bound of its own.
const READER_BACKLOG: usize = 64;
/// A comment is sent this often, so that proxies and readers know a quiet stream from a dead one.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `readers` has [`READERS_MAX`] permits; one is held as long as the body lives.
pub(super) async fn events(backend: Shared, readers: Arc<Semaphore>) -> Result<Response, Problem> {
    let place = readers.try_acquire_owned().map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_readers",
            format!("{READERS_MAX} readers follow the events already. Close one of them."),
        )
    })?;
    let (lines, stream) = mpsc::channel(READER_BACKLOG);
    tokio::spawn(forward(backend.subscribe(), lines));
    let body = Body::new(EventBody { stream, _place: place });
    Ok(([(CONTENT_TYPE, "text/event-stream")], body).into_response())
}

/// Passes events on until the reader leaves or the process ends.
async fn forward(mut events: broadcast::Receiver<EventView>, lines: mpsc::Sender<Bytes>) {
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    loop {
        let text = tokio::select! {
            () = lines.closed() => return,
            event = events.recv() => match event {
                Ok(event) => encode(&event),
                Err(RecvError::Lagged(lost)) => format!("event: lost\ndata: {{\"lost\":{lost}}}\n\n"),
                Err(RecvError::Closed) => return,
            },
            // The first tick is at once, so the head of the answer is not held back.
            _ = heartbeat.tick() => ":\n\n".to_owned(),
        };
        if lines.send(text.into()).await.is_err() {
            return;
        }
    }
}

/// JSON has no raw line ends, so an event is one `data` line.
fn encode(event: &EventView) -> String {
    let mut text = format!("event: {}\ndata: ", event.kind.name());
    // Writing into a string cannot fail, nor can a plain struct fail to be JSON.
    let _ = writeln!(text, "{}", serde_json::to_string(event).unwrap_or_default());
    text.push('\n');
    text
}

struct EventBody {
    stream: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.stream.poll_recv(cx).map(|text| text.map(|text| Ok(Frame::data(text))))
    }
}
