//! A client that sends any bytes in any pieces, and reads answers by their framing.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{End, find, within};

/// A client that sends what it is told.
#[derive(Debug)]
pub(crate) struct RawClient {
    stream: TcpStream,
    /// Received and not yet consumed.
    buffer: Vec<u8>,
    end: Option<End>,
}

/// One answer, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawResponse {
    pub(crate) status: u16,
    /// Status line and fields, without the empty line.
    pub(crate) head: String,
    /// Names as they were sent, values without surrounding blanks.
    pub(crate) fields: Vec<(String, String)>,
    /// Without the framing of chunks.
    pub(crate) body: Vec<u8>,
    /// The fields after the last chunk.
    pub(crate) trailers: Vec<(String, String)>,
}

impl RawResponse {
    /// The value of the first field of this name, in any case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl RawClient {
    /// Connects.
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(addr)).await.expect("it listens");
        stream.set_nodelay(true).expect("a connected socket takes options");
        Self { stream, buffer: Vec::new(), end: None }
    }

    /// Sends bytes. A peer that has closed already is found out by reading.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        drop(within("sending", self.stream.write_all(bytes.as_ref())).await);
    }

    /// Sends each piece in a packet of its own, as far as the system allows.
    pub(crate) async fn send_pieces<P: AsRef<[u8]>>(
        &mut self,
        pieces: impl IntoIterator<Item = P>,
    ) {
        for piece in pieces {
            self.send(piece).await;
            tokio::task::yield_now().await;
        }
    }

    /// Closes this side only (FIN).
    pub(crate) async fn finish(&mut self) {
        drop(self.stream.shutdown().await);
    }

    /// Resets the connection (RST).
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("a connected socket takes options");
    }

    /// Reads one answer to a GET, POST and so on. A 1xx is an answer of its own.
    pub(crate) async fn response(&mut self) -> RawResponse {
        within("a response", self.read_response(false)).await
    }

    /// Reads one answer to a HEAD.
    pub(crate) async fn response_to_head(&mut self) -> RawResponse {
        within("a response to HEAD", self.read_response(true)).await
    }

    /// Sends, and reads one answer.
    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> RawResponse {
        self.send(request).await;
        self.response().await
    }

    /// Everything until the peer closes, and how it did that.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, End) {
        within("the end of the connection", async { while self.fill().await {} }).await;
        (std::mem::take(&mut self.buffer), self.end.expect("it has ended"))
    }

    /// Everything until the peer closes or, if it does not, the end of a problem document.
    pub(crate) async fn rest_or_answer(&mut self) -> (Vec<u8>, Option<End>) {
        within("an answer or the end", async {
            while find(&self.buffer, b"\"waited_ms\"").is_none() && self.fill().await {}
        })
        .await;
        (std::mem::take(&mut self.buffer), self.end)
    }

    /// So many bytes, or how the connection ended before they were all there.
    pub(crate) async fn take_or_end(&mut self, count: usize) -> Result<Vec<u8>, End> {
        within("so many bytes", async { while self.buffer.len() < count && self.fill().await {} })
            .await;
        match self.end {
            Some(end) if self.buffer.len() < count => Err(end),
            _ => Ok(self.buffer.drain(..count).collect()),
        }
    }

    /// Waits until this text was received; it stays in the buffer.
    pub(crate) async fn until_text(&mut self, text: &str) {
        within(text, async {
            while find(&self.buffer, text.as_bytes()).is_none() {
                self.more().await;
            }
        })
        .await;
    }

    /// Waits until the peer closes and panics if it sends anything before that.
    pub(crate) async fn closed(&mut self) -> End {
        let (rest, end) = self.rest().await;
        assert!(rest.is_empty(), "sent before closing: {}", String::from_utf8_lossy(&rest));
        end
    }

    async fn read_response(&mut self, to_head: bool) -> RawResponse {
        let head = self.take_through(b"\r\n\r\n").await;
        let head = String::from_utf8_lossy(&head).trim_end().to_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {head:?}"));
        let fields = parse_fields(head.lines().skip(1));
        let mut trailers = Vec::new();
        let body = if to_head || matches!(status, 100..=199 | 204 | 304) {
            Vec::new()
        } else if field(&fields, "transfer-encoding").is_some() {
            self.read_chunks(&mut trailers).await
        } else if let Some(length) = field(&fields, "content-length") {
            self.take(length.parse().expect("Content-Length is a number")).await
        } else {
            while self.fill().await {}
            assert_eq!(self.end, Some(End::Eof), "a body framed by the end must end with FIN");
            std::mem::take(&mut self.buffer)
        };
        RawResponse { status, head, fields, body, trailers }
    }

    async fn read_chunks(&mut self, trailers: &mut Vec<(String, String)>) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line().await;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .unwrap_or_else(|_| panic!("not the size of a chunk: {line:?}"));
            if size == 0 {
                break;
            }
            body.extend(self.take(size).await);
            assert_eq!(self.take_line().await, "", "a chunk ends with an empty line");
        }
        loop {
            let line = self.take_line().await;
            if line.is_empty() {
                return body;
            }
            trailers.extend(parse_fields([line.as_str()]));
        }
    }

    async fn take_line(&mut self) -> String {
        let line = self.take_through(b"\r\n").await;
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    async fn take_through(&mut self, text: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = find(&self.buffer, text) {
                return self.buffer.drain(..at + text.len()).collect();
            }
            self.more().await;
        }
    }

    async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            self.more().await;
        }
        self.buffer.drain(..count).collect()
    }

    async fn more(&mut self) {
        let open = self.fill().await;
        let so_far = String::from_utf8_lossy(&self.buffer);
        assert!(open, "the connection ended ({:?}) within a response: {so_far:?}", self.end);
    }

    /// Reads what there is; false at the end.
    async fn fill(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        let mut piece = vec![0; 16 << 10];
        match self.stream.read(&mut piece).await {
            Ok(0) => self.end = Some(End::Eof),
            Ok(count) => self.buffer.extend(piece.iter().take(count)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.end = Some(End::Reset),
        }
        self.end.is_none()
    }
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

pub(crate) fn parse_fields<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
    let split = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
        (name.to_owned(), value.trim().to_owned())
    };
    lines.into_iter().map(split).collect()
}
