//! HTTP/2 frames by hand, for what no library would send: any frame with any flags, and header
//! blocks of literal fields without indexing or Huffman coding, so every byte is the test's own.
#![allow(dead_code, reason = "each test uses the part that it needs")]

use std::net::SocketAddr;

use super::raw::{End, RawClient};

/// The client connection preface (RFC 9113 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The bytes of one frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block: each field a literal without indexing, with a literal name (RFC 7541 6.2.2).
pub(crate) fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        string(&mut bytes, name.as_ref());
        string(&mut bytes, value.as_ref());
    }
    bytes
}

fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    if let Ok(short) = u8::try_from(text.len())
        && short < 127
    {
        bytes.push(short);
    } else {
        bytes.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend(text);
}

/// A whole request without a body.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block(&request("GET", path)))
}

/// The pseudo-fields of a request.
pub(crate) fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
}

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Status and body.
    Whole(u16, String),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    Goaway(u32),
    /// The connection ended without a word.
    Closed,
}

/// A client that sends frames.
pub(crate) struct FrameClient {
    raw: RawClient,
}

impl FrameClient {
    /// Connects, and sends preface and settings: no dynamic table, so each status is readable.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut raw = RawClient::connect(address).await;
        raw.send(PREFACE).await;
        raw.send(frame(SETTINGS, 0, 0, [0, 1, 0, 0, 0, 0])).await;
        Self { raw }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.raw.send(bytes).await;
    }

    /// The next frame, or how the connection ended.
    pub(crate) async fn next(&mut self) -> Result<Frame, End> {
        let head = self.raw.take_or_end(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = self.raw.take_or_end(usize::try_from(length).unwrap()).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until the stream, or the connection, has ended. Answers settings and pings, and gives
    /// back what was received of the window.
    pub(crate) async fn answer(&mut self, stream: u32) -> Answer {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let Ok(got) = self.next().await else { return Answer::Closed };
            let code = |at: usize| {
                let bytes = got.payload.get(at..at + 4).unwrap();
                u32::from_be_bytes(bytes.try_into().unwrap())
            };
            match got.kind {
                SETTINGS if got.flags & ACK == 0 => self.send(frame(SETTINGS, ACK, 0, [])).await,
                GOAWAY if code(4) != 0 => return Answer::Goaway(code(4)),
                RST_STREAM if got.stream == stream => return Answer::Reset(code(0)),
                HEADERS if got.stream == stream && status < 200 => status = status_of(&got.payload),
                DATA if got.stream == stream => body.extend(&got.payload),
                _ => {}
            }
            let ends = matches!(got.kind, HEADERS | DATA) && got.flags & END_STREAM != 0;
            if ends && got.stream == stream {
                return Answer::Whole(status, String::from_utf8_lossy(&body).into_owned());
            }
        }
    }
}

/// `:status` at the start of a header block, which is where it must be.
fn status_of(block: &[u8]) -> u16 {
    // A size update of the dynamic table may stand in front (RFC 7541 6.3).
    let mut at = 0;
    while block[at] & 0xe0 == 0x20 {
        at += 1;
    }
    match block[at] {
        indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        _ => digits(&block[at + 1..]),
    }
}

/// A string of digits, as it is or in Huffman coding (RFC 7541 appendix B).
fn digits(string: &[u8]) -> u16 {
    let bytes = &string[1..=usize::from(string[0] & 0x7f)];
    if string[0] & 0x80 == 0 {
        return std::str::from_utf8(bytes).unwrap().parse().unwrap();
    }
    let mut bits =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| u16::from(byte >> n & 1)));
    let mut take = |count: usize| (0..count).fold(0, |all, _| all << 1 | bits.next().unwrap());
    (0..3).fold(0, |number, _| {
        let code = take(5);
        // 0, 1 and 2 have five bits, the others six.
        let digit = if code <= 2 { code } else { (code << 1 | take(1)) - 0b01_1001 + 3 };
        number * 10 + digit
    })
}
