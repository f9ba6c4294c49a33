//! How a request path is read for matching, without being changed.
//!
//! A path is decoded once, byte by byte, and only to be compared: what is forwarded are the bytes
//! that came. So a route cannot be dodged by writing a letter as `%73`, and a path that another
//! reader could resolve to a different place is refused instead of being guessed at
//! (RFC 3986 6.2.2, RFC 9110 4.2.3).

/// One byte of a path, decoded once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// Written as itself.
    Raw(u8),
    /// Written as `%xx`.
    Escaped(u8),
    /// A `%` without two hexadecimal digits after it.
    Broken,
}

/// The pieces of a path, in order.
pub(super) struct Pieces<'a> {
    rest: &'a [u8],
}

impl<'a> Pieces<'a> {
    pub(super) fn of(path: &'a str) -> Self {
        Self { rest: path.as_bytes() }
    }

    /// Bytes that were not read yet.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let (piece, rest) = match self.rest {
            [] => return None,
            [b'%', high, low, rest @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (Piece::Escaped(high << 4 | low), rest),
                (Some(_) | None, Some(_) | None) => {
                    (Piece::Broken, self.rest.get(1..).unwrap_or_default())
                }
            },
            [b'%', rest @ ..] => (Piece::Broken, rest),
            [byte, rest @ ..] => (Piece::Raw(*byte), rest),
        };
        self.rest = rest;
        Some(piece)
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Says why `path` could be read as another path by somebody behind us; `None` if it could not.
///
/// Refused are dot segments in every spelling (`..`, `%2E.`, `..;x`, `a%2f..`), a backslash, an
/// escaped control byte and an empty first segment. Everything else passes as it came: `%2F`
/// within a segment, empty segments further on, semicolons, broken escapes.
pub(super) fn unsafe_path(path: &str) -> Option<&'static str> {
    /// What the current segment consists of so far, as far as it matters.
    enum Segment {
        Dots(u8),
        Other,
    }
    const DOT_SEGMENT: &str = "a `.` or `..` segment, possibly percent-encoded";

    if path.starts_with("//") {
        return Some("an empty first segment (`//`)");
    }
    let mut segment = Segment::Dots(0);
    for piece in Pieces::of(path) {
        let (Piece::Raw(byte) | Piece::Escaped(byte)) = piece else {
            segment = Segment::Other;
            continue;
        };
        if byte.is_ascii_control() {
            return Some("a control byte");
        }
        if piece == Piece::Raw(b'\\') {
            return Some("a backslash");
        }
        segment = match (byte, segment) {
            (b'/' | b'\\' | b';', Segment::Dots(1 | 2)) => return Some(DOT_SEGMENT),
            (b'/' | b'\\', Segment::Dots(_) | Segment::Other) => Segment::Dots(0),
            (b'.', Segment::Dots(dots @ 0..=1)) => Segment::Dots(dots + 1),
            (_, Segment::Dots(_) | Segment::Other) => Segment::Other,
        };
    }
    matches!(segment, Segment::Dots(1 | 2)).then_some(DOT_SEGMENT)
}

/// How a path relates to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stripped<'a> {
    /// It lies elsewhere.
    Outside,
    /// It lies under the prefix: what follows, as it came. Empty or beginning with `/`.
    Inside(&'a str),
    /// It would lie under it for a reader that takes `%2F` or `%5C` for a separator, or that
    /// guesses at a broken escape. Nobody may choose between the two readings.
    Ambiguous,
}

/// Takes `prefix` off `path` by whole segments. A final slash of the prefix means nothing, so `/`
/// holds every path.
pub(super) fn strip<'a>(path: &'a str, prefix: &str) -> Stripped<'a> {
    let mut pieces = Pieces::of(path);
    let mut ambiguous = false;
    for want in prefix.trim_end_matches('/').bytes() {
        match pieces.next() {
            Some(Piece::Raw(got)) if got == want => {}
            Some(Piece::Escaped(b'/' | b'\\')) if want == b'/' => ambiguous = true,
            Some(Piece::Escaped(got)) if got == want => {}
            Some(Piece::Broken) => return Stripped::Ambiguous,
            Some(Piece::Raw(_) | Piece::Escaped(_)) | None => return Stripped::Outside,
        }
    }
    let rest = pieces.rest;
    match pieces.next() {
        None | Some(Piece::Raw(b'/')) if !ambiguous => {
            // Inside a match everything is either ASCII or a whole escape, so the cut is sound.
            let taken = path.len() - rest.len();
            path.get(taken..).map_or(Stripped::Outside, Stripped::Inside)
        }
        None | Some(Piece::Raw(b'/') | Piece::Escaped(b'/' | b'\\') | Piece::Broken) => {
            Stripped::Ambiguous
        }
        Some(Piece::Raw(_) | Piece::Escaped(_)) => Stripped::Outside,
    }
}

/// Whether a segment, decoded once, spells `literal`.
pub(super) fn spells(segment: &str, literal: &str) -> bool {
    let mut pieces = Pieces::of(segment);
    literal.bytes().all(|want| match pieces.next() {
        Some(Piece::Raw(got) | Piece::Escaped(got)) => got == want,
        Some(Piece::Broken) | None => false,
    }) && pieces.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_be_resolved_to_another_place_is_refused() {
        for path in [
            "/..",
            "/.",
            "/a/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e",
            "/.%2E/b",
            "/%2E./b",
            "/a/%2e",
            "/..;/b",
            "/a/..;x=1/b",
            "/a/..%3bx",
            "/.;",
            "/a%2f..",
            "/a%2F..%2fb",
            "/a%5c..%5Cb",
            "/a/..\\b",
            "/\\evil",
            "/a\\b",
            "/a%00",
            "/a%0d%0aX:1",
            "/%7F",
            "//a",
            "//",
        ] {
            assert!(unsafe_path(path).is_some(), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_merely_unusual_passes() {
        for path in [
            "",
            "/",
            "/a//b",
            "/a/",
            "/...",
            "/a/...",
            "/..a/b",
            "/a..",
            "/.well-known/x",
            "/projects/group%2Fproject",
            "/a;b=c/d",
            "/%zz",
            "/%",
            "/a%2",
            "/%252e%252e/b",
            "/a%5cb",
            "/%c0%ae%c0%ae/b",
            "/\u{fc}ber",
            "/a%20b",
            "/.%zz/",
        ] {
            assert_eq!(unsafe_path(path), None, "{path}");
        }
    }

    #[test]
    fn a_prefix_is_taken_off_by_whole_segments() {
        use Stripped::{Ambiguous, Inside, Outside};
        for (path, prefix, expected) in [
            ("/github", "/github", Inside("")),
            ("/github/", "/github", Inside("/")),
            ("/github/x", "/github/", Inside("/x")),
            ("/githubx", "/github", Outside),
            ("/git", "/github", Outside),
            ("/GitHub/x", "/github", Outside),
            ("/github;v=1/x", "/github", Outside),
            ("/%67ithub/%78", "/github", Inside("/%78")),
            ("/a/b/c", "/a/b", Inside("/c")),
            ("/anything", "/", Inside("/anything")),
            ("/%2Fx", "/", Inside("/%2Fx")),
            ("/%2Fx", "", Inside("/%2Fx")),
            ("/github%2Fx", "/github", Ambiguous),
            ("/github%5cx", "/github", Ambiguous),
            ("/a%2fb/c", "/a/b", Ambiguous),
            ("/a%5Cb", "/a/b", Ambiguous),
            ("/git%zzhub", "/github", Ambiguous),
            ("/github%2", "/github", Ambiguous),
            ("/github/%zz", "/github", Inside("/%zz")),
            ("/\u{fc}/x", "/\u{fc}", Inside("/x")),
            ("/%C3%BC/x", "/\u{fc}", Inside("/x")),
        ] {
            assert_eq!(strip(path, prefix), expected, "{path} under {prefix}");
        }
    }

    #[test]
    fn a_literal_is_recognised_in_every_spelling() {
        assert!(spells("search", "search") && spells("%73earc%68", "search"));
        assert!(!spells("searc", "search") && !spells("searchx", "search"));
        assert!(!spells("a%2Fb", "a") && !spells("%zz", "%zz"));
    }
}
