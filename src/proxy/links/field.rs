//! Where the addresses stand in a field's value. Each function reads once from left to right, and
//! where a value is not as its RFC has it, says nothing of the rest.

use std::ops::Range;

/// `Location` and `Content-Location` are one reference (RFC 9110 8.7, 10.2.2).
pub(super) fn whole(value: &str) -> Vec<Range<usize>> {
    let before = value.len() - value.trim_start().len();
    std::iter::once(before..before + value.trim().len()).collect()
}

/// `Link: <a>; rel="next", <b>; title="x, <y>"` (RFC 8288 3).
pub(super) fn of_link(value: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut rest = value;
    loop {
        // A list may have empty members (RFC 9110 5.6.1.2).
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some(after) = rest.strip_prefix('<') else { return found };
        let Some((reference, parameters)) = after.split_once('>') else { return found };
        let from = value.len() - after.len();
        found.push(from..from + reference.len());
        let Some(next) = after_parameters(parameters) else { return found };
        rest = next;
    }
}

/// What follows the next comma that is not within quotes.
fn after_parameters(text: &str) -> Option<&str> {
    let mut quoted = false;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if quoted => drop(bytes.next()),
            b'"' => quoted = !quoted,
            b',' if !quoted => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

/// `5; url=https://api.example/x`, as browsers read it; anything more artful is left alone.
pub(super) fn of_refresh(value: &str) -> Vec<Range<usize>> {
    let found = || {
        let (seconds, rest) = value.split_once(';')?;
        let rest = rest.trim_start();
        let (name, url) = rest.split_once('=')?;
        let is_simple = seconds.bytes().all(|byte| byte.is_ascii_digit())
            && name.eq_ignore_ascii_case("url")
            && !url.contains(['"', '\'', ' ', ';', ',']);
        is_simple.then(|| value.len() - url.len()..value.len())
    };
    found().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(find: fn(&str) -> Vec<Range<usize>>, value: &str) -> Vec<&str> {
        find(value).into_iter().map(|range| &value[range]).collect()
    }

    #[test]
    fn every_target_of_a_link_field_is_found_and_no_parameter() {
        for (value, expected) in [
            (
                r#"<https://a/1>; rel="next", <https://a/9>; rel="last""#,
                &["https://a/1", "https://a/9"][..],
            ),
            ("<a>,<b>,,\t<c>", &["a", "b", "c"]),
            (r#"<a>; title="x, <y>; \", <z>", <b>"#, &["a", "b"]),
            (r#"<a>; anchor="<c>"; rel=next , <b>"#, &["a", "b"]),
            ("<>; rel=self", &[""]),
            (r#"<a>; title="never closed, <b>"#, &["a"]),
            ("<a>; rel=next, b, <c>", &["a"]),
            ("<a", &[]),
            ("a", &[]),
            ("", &[]),
            (",,,", &[]),
        ] {
            assert_eq!(texts(of_link, value), expected, "{value}");
        }
    }

    #[test]
    fn a_refresh_is_read_if_it_is_simple() {
        assert_eq!(texts(of_refresh, "5; url=https://a/1?x=y"), ["https://a/1?x=y"]);
        assert_eq!(texts(of_refresh, "0;URL=/next"), ["/next"]);
        for other in ["5", "5; 'a'", "5; url='a'", "5; url=a; b", "x; url=a", "5, url=a"] {
            assert!(texts(of_refresh, other).is_empty(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_a_reader_panic_or_give_a_range_that_is_none(value in "(.|[<>,;\"\\\\= ]){0,60}") {
            for find in [whole, of_link, of_refresh] {
                let mut end = 0;
                for range in find(&value) {
                    prop_assert!(range.start >= end && value.get(range.clone()).is_some());
                    end = range.end;
                }
            }
        }
    }
}
