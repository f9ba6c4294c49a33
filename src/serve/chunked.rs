//! A chunked request body, RFC 9112 section 7.1, watched as it passes.
//!
//! hyper decodes it; this makes sure beforehand that nobody could decode it in another way. Chunk
//! sizes, extensions and data pass as they come, since a parser can do nothing with half a size line
//! but wait. The trailer section is held until it is whole, because its fields must be judged.

use super::Violation;
use super::fields::{Lines, is_control, shown, split};

/// Longest chunk-size line. No client of an API sends extensions at all.
const SIZE_LINE_MAX: usize = 4 * 1024;

/// Extension bytes of all chunks of one body together; hyper gives up at 16 KiB.
const EXTENSIONS_MAX: usize = 8 * 1024;

/// Longest trailer section.
const TRAILERS_MAX: usize = 8 * 1024;

/// Most trailer fields.
const TRAILER_FIELDS_MAX: usize = 32;

/// Digits of a chunk size: what fits into 64 bits.
const SIZE_DIGITS_MAX: usize = 16;

/// Fields that mean something before a body and must not come behind it (RFC 9110 section 6.5.1):
/// framing, routing, authentication, request modifiers, and how to read the content.
const FORBIDDEN_TRAILERS: [&str; 32] = [
    "accept-encoding",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "pragma",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
];

/// Prefix of the fields that forbear itself reads; a trailer would come too late to be one.
const OWN_PREFIX: &[u8] = b"forbear-";

/// A chunked body under way.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    extensions: usize,
}

#[derive(Debug)]
enum State {
    Size { digits: usize, size: u64 },
    Extension { size: u64, len: usize },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailers(Trailers),
}

#[derive(Debug, Default)]
struct Trailers {
    lines: Lines,
    fields: usize,
}

/// What one look at the bytes gave.
#[derive(Debug)]
pub(super) struct Scanned {
    /// So many bytes may pass.
    pub(super) pass: usize,
    /// Whether the body goes on behind them, is over, or is faulty there.
    pub(super) end: Result<End, Violation>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// More must come.
    NotYet,
    /// The body is over.
    Reached,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { state: State::Size { digits: 0, size: 0 }, extensions: 0 }
    }

    /// Reads on. `bytes` begins with the first byte that has not passed yet.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut pass = 0;
        loop {
            let rest = bytes.get(pass..).unwrap_or_default();
            if let State::Trailers(trailers) = &mut self.state {
                return match trailers.scan(rest) {
                    Ok(Some(len)) => Scanned { pass: pass + len, end: Ok(End::Reached) },
                    Ok(None) => Scanned { pass, end: Ok(End::NotYet) },
                    Err(violation) => Scanned { pass, end: Err(violation) },
                };
            }
            let [byte, ..] = rest else {
                return Scanned { pass, end: Ok(End::NotYet) };
            };
            if let State::Data { left } = &mut self.state {
                let step = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= step as u64;
                pass += step;
                if *left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            if let Err(violation) = self.step(*byte) {
                return Scanned { pass, end: Err(violation) };
            }
            pass += 1;
        }
    }

    /// One byte of what is not data.
    fn step(&mut self, byte: u8) -> Result<(), Violation> {
        self.state = match (&self.state, byte) {
            (State::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F')
                if *digits < SIZE_DIGITS_MAX =>
            {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                State::Size { digits: digits + 1, size: (size << 4) | u64::from(digit) }
            }
            (State::Size { digits: 1.., size }, b';') => State::Extension { size: *size, len: 0 },
            (State::Size { digits: 1.., size } | State::Extension { size, .. }, b'\r') => {
                State::SizeLf { size: *size }
            }
            (State::Extension { size, len }, byte) if !is_control(byte) => {
                self.extensions += 1;
                if len + SIZE_DIGITS_MAX >= SIZE_LINE_MAX || self.extensions >= EXTENSIONS_MAX {
                    return Err(Violation::bad(format!(
                        "chunk extension: more than {SIZE_LINE_MAX} bytes in one line or \
                         {EXTENSIONS_MAX} in one body; send none"
                    )));
                }
                State::Extension { size: *size, len: len + 1 }
            }
            (State::SizeLf { size: 0 }, b'\n') => State::Trailers(Trailers::default()),
            (State::SizeLf { size }, b'\n') => State::Data { left: *size },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0, size: 0 },
            (State::DataCr | State::DataLf, byte) => {
                return Err(Violation::bad(format!(
                    "chunk: found 0x{byte:02x} behind its data where CRLF must be; make the chunk size \
                     agree with the data"
                )));
            }
            (_, byte) => {
                return Err(Violation::bad(format!(
                    "chunk size: found 0x{byte:02x}; send up to {SIZE_DIGITS_MAX} hexadecimal digits \
                     and CRLF"
                )));
            }
        };
        Ok(())
    }
}

impl Trailers {
    /// The length of the section if it is whole.
    fn scan(&mut self, block: &[u8]) -> Result<Option<usize>, Violation> {
        let view = block.get(..TRAILERS_MAX).unwrap_or(block);
        loop {
            match self.lines.next(view)? {
                Some([]) => return Ok(Some(self.lines.consumed())),
                Some(line) => self.field(line)?,
                None if view.len() < TRAILERS_MAX => return Ok(None),
                None => {
                    return Err(Violation::bad(format!(
                        "trailers: longer than {TRAILERS_MAX} bytes; send fewer"
                    )));
                }
            }
        }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Violation> {
        let (name, _) = split(line)?;
        self.fields += 1;
        if self.fields > TRAILER_FIELDS_MAX {
            return Err(Violation::bad(format!(
                "trailers: more than {TRAILER_FIELDS_MAX} fields; send fewer"
            )));
        }
        let own = name.get(..OWN_PREFIX.len()).is_some_and(|p| p.eq_ignore_ascii_case(OWN_PREFIX));
        if own || FORBIDDEN_TRAILERS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
        {
            return Err(Violation::bad(format!(
                "trailers: found `{}`, which counts only in the head; send it there",
                shown(name)
            )));
        }
        Ok(())
    }
}
