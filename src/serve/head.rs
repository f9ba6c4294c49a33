//! The head of an HTTP/1.1 request: everything that decides where the message ends.
//!
//! A head is read line by line as it arrives and judged in that order; only a whole and valid one goes
//! on to hyper. Framing follows RFC 9112 section 6.3 at its strictest: one `Content-Length` of digits,
//! or one `Transfer-Encoding: chunked`, or no body. Whatever a parser further on might read in another
//! way is refused, not repaired.

use http::StatusCode;

use super::Violation;
use super::fields::{Lines, shown, split};
use super::target::{self, REQUEST_LINE_MAX, Version};

/// Longest head, request line included. More than any API needs, and the most that one connection can
/// make forbear keep before anything is known of it.
pub(super) const HEAD_MAX: usize = 64 * 1024;

/// Most field lines in a head; hyper is told the same number.
pub(super) const FIELDS_MAX: usize = 128;

/// Empty lines before a request line that are ignored, as RFC 9112 section 2.2 asks for old clients
/// that send one behind a body. More of them are no accident.
const EMPTY_LINES_MAX: usize = 2;

/// A head under way.
#[derive(Debug, Default)]
pub(super) struct Head {
    lines: Lines,
    empty_lines: usize,
    version: Option<Version>,
    fields: usize,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
}

/// How far a head has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its end has not come yet.
    Partial,
    /// It takes `len` bytes, and this is what follows.
    Whole { len: usize, framing: Framing },
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The next head.
    Nothing,
    /// So many bytes.
    Sized(u64),
    /// Chunks and trailers.
    Chunked,
}

impl Head {
    /// Reads on. `block` begins where the head begins, and only grows between two calls.
    pub(super) fn scan(&mut self, block: &[u8]) -> Result<Progress, Violation> {
        loop {
            let max = match self.version {
                None => (self.lines.consumed() + REQUEST_LINE_MAX).min(HEAD_MAX),
                Some(_) => HEAD_MAX,
            };
            // Bytes beyond the limit are not looked at, so that a cut makes no difference.
            let view = block.get(..max).unwrap_or(block);
            let Some(line) = self.lines.next(view)? else {
                return if view.len() < max { Ok(Progress::Partial) } else { Err(self.too_long()) };
            };
            match (self.version, line) {
                (None, []) => {
                    self.empty_lines += 1;
                    if self.empty_lines > EMPTY_LINES_MAX {
                        return Err(Violation::bad(
                            "request line: found more than two empty lines before it; send none",
                        ));
                    }
                }
                (None, line) => self.version = Some(target::request_line(line)?),
                (Some(version), []) => {
                    let framing = self.framing(version)?;
                    return Ok(Progress::Whole { len: self.lines.consumed(), framing });
                }
                (Some(_), line) => self.field(line)?,
            }
        }
    }

    /// Whether anything but empty lines has come.
    pub(super) fn has_begun(&self, block: &[u8]) -> bool {
        let rest = block.get(self.lines.consumed()..).unwrap_or_default();
        self.version.is_some() || !matches!(rest, [] | [b'\r'])
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Violation> {
        let (name, value) = split(line)?;
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(fields_too_large(format!(
                "fields: more than {FIELDS_MAX} in one head; send fewer"
            )));
        }
        if name.eq_ignore_ascii_case(b"host") {
            self.host(value)
        } else if name.eq_ignore_ascii_case(b"content-length") {
            self.content_length(value)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.transfer_encoding(value)
        } else {
            Ok(())
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Violation> {
        self.hosts += 1;
        if self.hosts > 1 {
            return Err(Violation::bad("Host: found more than one; send it once"));
        }
        if !target::is_authority(value) {
            return Err(Violation::bad(format!(
                "Host: found `{}`, which is no host and port; send for example `localhost:8080`",
                shown(value)
            )));
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.length.is_some() {
            return Err(Violation::bad("Content-Length: found more than one; send it once"));
        }
        self.length = Some(parse_length(value)?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Violation::bad(format!(
                "Transfer-Encoding: found {}; send `chunked`, alone and once",
                if self.chunked {
                    "a second one".to_owned()
                } else {
                    format!("`{}`", shown(value))
                }
            )));
        }
        self.chunked = true;
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Framing, Violation> {
        if version == Version::Http11 && self.hosts == 0 {
            return Err(Violation::bad("Host: it is missing; HTTP/1.1 requires it once"));
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Violation::bad(
                "Content-Length: found beside Transfer-Encoding; send one of the two",
            )),
            (true, None) if version == Version::Http10 => Err(Violation::bad(
                "Transfer-Encoding: found in an HTTP/1.0 request; send Content-Length or use HTTP/1.1",
            )),
            (true, None) => Ok(Framing::Chunked),
            (false, None | Some(0)) => Ok(Framing::Nothing),
            (false, Some(length)) => Ok(Framing::Sized(length)),
        }
    }

    fn too_long(&self) -> Violation {
        match self.version {
            None => target::target_too_long(),
            Some(_) => fields_too_large(format!(
                "head: longer than {HEAD_MAX} bytes; send fewer or shorter fields"
            )),
        }
    }
}

/// The value of `Content-Length`: digits, and no more than a signed 64-bit number, which is what other
/// parsers on the way may have.
pub(super) fn parse_length(value: &[u8]) -> Result<u64, Violation> {
    let digits = str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|digits| digits.parse::<i64>().ok()?.try_into().ok()).ok_or_else(|| {
        Violation::bad(format!(
            "Content-Length: found `{}`; send one decimal number that fits into 63 bits",
            shown(value)
        ))
    })
}

pub(super) fn fields_too_large(detail: String) -> Violation {
    Violation::too_large(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail)
}
