//! Finds strings at given paths of a JSON document, and where in the text they stand.
//!
//! A body is edited as text: whoever reads it and writes it anew changes numbers, order and
//! spelling, and breaks signatures over what clients re-read. So the document is only walked, once
//! and without recursion, and every byte that is no address stays. The walk is as strict as
//! RFC 8259 about structure, so that the place of a value cannot be mistaken; what is no JSON, or
//! nested beyond reason, is not edited.

use std::borrow::Cow;
use std::ops::Range;

use crate::policy::profile::{LinkKind, LinkPath, Step};

/// Lists and objects within each other at most, as in most parsers.
const DEPTH_MAX: usize = 128;
/// Addresses in one body at most; an API has one or two.
const FOUND_MAX: usize = 1_000;

/// A string at one of the paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// What its path says.
    pub(super) kind: LinkKind,
    /// Where it stands, without its quotes.
    pub(super) range: Range<usize>,
    /// What it says.
    pub(super) text: Cow<'a, str>,
}

impl Found<'_> {
    /// Where its first `taken` bytes stand as they are written, escapes and all.
    pub(super) fn head(&self, body: &str, taken: usize) -> Range<usize> {
        let mut written = 0;
        let mut said = 0;
        let mut chars = Chars { rest: body.get(self.range.clone()).unwrap_or_default() };
        while said < taken
            && let Some(Ok((char, length))) = chars.next()
        {
            said += char.len_utf8();
            written += length;
        }
        self.range.start..self.range.start + written
    }
}

/// What a string begins with, as it is written in a document.
pub(super) fn escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// Every string at one of `paths`, in the order of the text; `None` if it is no JSON.
pub(super) fn find<'a>(body: &'a str, paths: &[LinkPath]) -> Option<Vec<Found<'a>>> {
    let mut walk = Walk { body, at: 0, paths, open: Vec::new(), found: Vec::new() };
    let every = paths.iter().enumerate().fold(0, |mask, (index, _)| mask | bit(index));
    walk.document(every)?;
    Some(walk.found)
}

/// One bit for each path that was followed so far.
type Mask = u64;

fn bit(index: usize) -> Mask {
    u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index)).unwrap_or(0)
}

#[derive(Clone, Copy)]
enum Open {
    /// With the paths that lead to it.
    Object(Mask),
    /// With the paths that lead to its elements.
    Array(Mask),
}

struct Walk<'a, 'p> {
    body: &'a str,
    at: usize,
    paths: &'p [LinkPath],
    open: Vec<Open>,
    found: Vec<Found<'a>>,
}

impl<'a> Walk<'a, '_> {
    fn document(&mut self, every: Mask) -> Option<()> {
        let mut next = Some(every);
        loop {
            // A value, if one is due here; then whatever may follow it.
            if let Some(mask) = next.take() {
                next = self.value(mask)?;
                if next.is_some() {
                    continue;
                }
            }
            self.blanks();
            let Some(open) = self.open.last().copied() else { break };
            match (open, self.byte()?) {
                (Open::Object(mask), b',') => next = Some(self.key(mask)?),
                (Open::Array(mask), b',') => next = Some(mask),
                (Open::Object(_), b'}') | (Open::Array(_), b']') => drop(self.open.pop()),
                (Open::Object(_) | Open::Array(_), _) => return None,
            }
        }
        (self.at == self.body.len()).then_some(())
    }

    /// Reads a value, or the beginning of one that has members: then the paths of its first.
    fn value(&mut self, mask: Mask) -> Option<Option<Mask>> {
        self.blanks();
        match self.byte()? {
            b'{' => self.enter(Open::Object(mask), b'}'),
            b'[' => self.enter(Open::Array(self.along(mask, |step| *step == Step::Each)), b']'),
            b'"' => {
                let range = self.string()?;
                self.note(mask, range);
                Some(None)
            }
            b't' => self.word("rue"),
            b'f' => self.word("alse"),
            b'n' => self.word("ull"),
            b'-' | b'0'..=b'9' => {
                let rest = self.body.get(self.at..)?;
                let is_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
                self.at += rest.bytes().take_while(|byte| is_number(*byte)).count();
                Some(None)
            }
            _ => None,
        }
    }

    fn enter(&mut self, open: Open, end: u8) -> Option<Option<Mask>> {
        self.blanks();
        if self.body.as_bytes().get(self.at) == Some(&end) {
            self.at += 1;
            return Some(None);
        }
        if self.open.len() >= DEPTH_MAX {
            return None;
        }
        self.open.push(open);
        match open {
            Open::Object(mask) => self.key(mask).map(Some),
            Open::Array(mask) => Some(Some(mask)),
        }
    }

    /// Reads a name and its colon; which of the paths go on by it.
    fn key(&mut self, mask: Mask) -> Option<Mask> {
        self.blanks();
        if self.byte()? != b'"' {
            return None;
        }
        let range = self.string()?;
        let mut key = None;
        if mask != 0 {
            key = said(self.body.get(range)?);
        }
        self.blanks();
        if self.byte()? != b':' {
            return None;
        }
        // The object is open already, so its members lie one deeper than the paths that led to it.
        let depth = self.open.len() - 1;
        Some(self.goes_on(mask, depth, |step| match (step, &key) {
            (Step::Key(wanted), Some(key)) => **wanted == **key,
            (Step::Key(_) | Step::Each, _) => false,
        }))
    }

    /// Those of the paths that lead to what is about to be opened and go on by such a step.
    fn along(&self, mask: Mask, fits: impl Fn(&Step) -> bool) -> Mask {
        self.goes_on(mask, self.open.len(), fits)
    }

    fn goes_on(&self, mask: Mask, depth: usize, fits: impl Fn(&Step) -> bool) -> Mask {
        if mask == 0 {
            return 0;
        }
        let goes = |path: &LinkPath| path.steps.get(depth).is_some_and(&fits);
        let paths = self.paths.iter().enumerate().filter(|(_, path)| goes(path));
        paths.fold(0, |all, (index, _)| all | bit(index)) & mask
    }

    /// Takes a string that stands where a path ends.
    fn note(&mut self, mask: Mask, range: Range<usize>) {
        if mask == 0 || self.found.len() >= FOUND_MAX {
            return;
        }
        let depth = self.open.len();
        let ends = |(index, path): &(usize, &LinkPath)| {
            mask & bit(*index) != 0 && path.steps.len() == depth
        };
        let ending = self.paths.iter().enumerate().find(ends);
        let text = self.body.get(range.clone()).and_then(said);
        if let (Some((_, path)), Some(text)) = (ending, text) {
            self.found.push(Found { kind: path.kind, range, text });
        }
    }

    /// Reads the rest of a string, behind its first quote; where its content stands.
    fn string(&mut self) -> Option<Range<usize>> {
        let from = self.at;
        loop {
            match self.byte()? {
                b'"' => return Some(from..self.at - 1),
                b'\\' => match self.byte()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits = self.body.as_bytes().get(self.at..self.at + 4)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 4;
                    }
                    _ => return None,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn word(&mut self, rest: &str) -> Option<Option<Mask>> {
        self.body.get(self.at..)?.starts_with(rest).then_some(())?;
        self.at += rest.len();
        Some(None)
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.body.as_bytes().get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn blanks(&mut self) {
        let bytes = self.body.as_bytes();
        while bytes.get(self.at).is_some_and(|byte| b" \t\r\n".contains(byte)) {
            self.at += 1;
        }
    }
}

/// What a string says; `None` where an escape is half a character.
fn said(written: &str) -> Option<Cow<'_, str>> {
    if !written.contains('\\') {
        return Some(Cow::Borrowed(written));
    }
    let chars = Chars { rest: written };
    chars
        .map(|char| char.map(|(char, _)| char))
        .collect::<Result<String, HalfChar>>()
        .ok()
        .map(Cow::Owned)
}

/// An escape that is half of a pair.
struct HalfChar;

/// The characters of a string's content, with the bytes that each is written in.
struct Chars<'a> {
    rest: &'a str,
}

impl Iterator for Chars<'_> {
    type Item = Result<(char, usize), HalfChar>;

    fn next(&mut self) -> Option<Self::Item> {
        let char = self.rest.chars().next()?;
        let read = if char == '\\' { escape(self.rest) } else { Some((char, char.len_utf8())) };
        let Some((_, length)) = read else {
            self.rest = "";
            return Some(Err(HalfChar));
        };
        self.rest = self.rest.get(length..).unwrap_or_default();
        read.map(Ok)
    }
}

/// The character of the escape at the start, and its length (RFC 8259 7).
fn escape(text: &str) -> Option<(char, usize)> {
    let char = match *text.as_bytes().get(1)? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let unit = |at: usize| u16::from_str_radix(text.get(at..at + 4)?, 16).ok();
            let first = unit(2)?;
            let second = || (text.get(6..8)? == "\\u").then(|| unit(8))?;
            let units = [first, second().unwrap_or_default()];
            let is_high = (0xD800..0xDC00).contains(&first);
            let char = char::decode_utf16(units).next()?.ok()?;
            return Some((char, if is_high { 12 } else { 6 }));
        }
        other => char::from(other),
    };
    Some((char, 2))
}

#[cfg(test)]
mod tests;
