//! Lines and fields as RFC 9112 section 2.2 and RFC 9110 section 5 define them, without the leniency.
//!
//! Two parsers that disagree about where a line ends are what request smuggling is made of, so a line
//! ends with CRLF and nothing else, and no other control byte but a tab occurs in it. Bytes are looked
//! at once, in the order of the stream, so the verdict does not depend on how they were cut into reads.

use super::Violation;

/// How far a block of lines has been read.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Where the line under way begins.
    start: usize,
    /// The next byte to look at.
    at: usize,
}

impl Lines {
    /// The next whole line of `block`, without its CRLF; `None` if its end has not come yet.
    /// `block` is the same on every call, only longer.
    pub(super) fn next<'b>(&mut self, block: &'b [u8]) -> Result<Option<&'b [u8]>, Violation> {
        let rest = block.get(self.at..).unwrap_or_default();
        let offset = plain(rest);
        self.at += offset;
        match rest.get(offset..).unwrap_or_default() {
            [b'\r', b'\n', ..] => {
                let line = block.get(self.start..self.at).unwrap_or_default();
                self.at += 2;
                self.start = self.at;
                Ok(Some(line))
            }
            [] | [b'\r'] => Ok(None),
            [b'\r', ..] => Err(Violation::bad(
                "line end: found a carriage return without a line feed; end every line with CRLF",
            )),
            [b'\n', ..] => Err(Violation::bad(
                "line end: found a line feed without a carriage return; end every line with CRLF",
            )),
            other => Err(Violation::bad(format!(
                "control byte: found 0x{:02x}, which no head may contain; send HTTP in plain text, \
                 and percent-encode such bytes",
                other.first().copied().unwrap_or_default()
            ))),
        }
    }

    /// How many bytes of the block belong to lines that are over.
    pub(super) fn consumed(&self) -> usize {
        self.start
    }
}

/// Splits a field line into its name and its value, the latter without surrounding white space.
pub(super) fn split(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if let [b' ' | b'\t', ..] = line {
        return Err(Violation::bad(
            "field line: found one that begins with white space (folding is obsolete); write each \
             field on one line",
        ));
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Err(Violation::bad("field line: found one without a colon; write `name: value`"));
    };
    let (name, value) = line.split_at(colon);
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(Violation::bad(format!(
            "field name: found `{}`, which is not a token; use letters, digits and hyphens, with no \
             space before the colon",
            shown(name)
        )));
    }
    Ok((name, value.get(1..).unwrap_or_default().trim_ascii()))
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    matches!(byte,
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
        | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// How many bytes stand before the first control byte. Sixteen at a time, since the compiler makes a
/// few vector instructions of a block that is looked at as a whole.
fn plain(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<16>();
    let is_plain =
        |block: &&[u8; 16]| !block.iter().fold(false, |found, byte| found | is_control(*byte));
    let skipped = 16 * blocks.iter().take_while(is_plain).count();
    let rest = bytes.get(skipped..).unwrap_or_default();
    skipped + rest.iter().position(|byte| is_control(*byte)).unwrap_or(rest.len())
}

/// Bytes from a peer as they may stand in a sentence: short, printable, one line.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 48;
    let head = bytes.get(..SHOWN_MAX).unwrap_or(bytes);
    let dots = if head.len() < bytes.len() { "…" } else { "" };
    format!("{}{dots}", head.escape_ascii())
}

/// Control bytes but the tab, which is white space within a field value.
pub(super) fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}
