//! A strict reader of the Prometheus text format (version 0.0.4): what it accepts, every scraper
//! accepts.

use std::collections::{BTreeMap, BTreeSet};

/// Series by their full text (`name{label="value"}`), with their values.
pub(crate) type Series = BTreeMap<String, f64>;

/// Reads an exposition; panics with the line and the rule that it breaks.
pub(crate) fn read(text: &str) -> Series {
    assert!(text.ends_with('\n'), "the last line must end with a line feed");
    let mut series = Series::new();
    let mut families = BTreeSet::new();
    let (mut family, mut kind, mut helped) = (String::new(), String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, said) = help.split_once(' ').unwrap_or((help, ""));
            assert!(!said.is_empty(), "a HELP that says nothing: {line}");
            helped = name.to_owned();
        } else if let Some(kinds) = line.strip_prefix("# TYPE ") {
            let (name, of) = kinds.split_once(' ').expect("TYPE has a name and a type");
            assert_eq!(name, helped, "TYPE follows HELP of the same family: {line}");
            assert!(families.insert(name.to_owned()), "a family in two places: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&of), "no such type: {line}");
            (family, kind) = (name.to_owned(), of.to_owned());
        } else {
            let (full, value) = line.rsplit_once(' ').expect("a sample has a name and a value");
            let name = name_of(full);
            let known = match kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|end| name.strip_suffix(end) == Some(family.as_str())),
                _ => name == family,
            };
            assert!(known, "a sample outside its family {family}: {line}");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(kind == "gauge" || value >= 0.0, "less than nothing: {line}");
            assert!(series.insert(full.to_owned(), value).is_none(), "given twice: {line}");
        }
    }
    assert_histograms(&series);
    series
}

/// The name in front of the labels; panics if name or labels are not well formed.
fn name_of(full: &str) -> &str {
    let Some((name, labels)) = full.split_once('{') else { return word(full, full) };
    let mut rest = labels.strip_suffix('}').unwrap_or_else(|| panic!("no closing brace: {full}"));
    let mut seen = BTreeSet::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no value: {full}"));
        assert!(seen.insert(word(label, full)), "a label twice: {full}");
        rest = end_of_value(after, full).trim_start_matches(',');
    }
    word(name, full)
}

/// What follows the closing quote.
fn end_of_value<'a>(text: &'a str, full: &str) -> &'a str {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return &text[at + 1..],
            '\\' => {
                let escaped = chars.next().map(|(_, c)| c);
                assert!(matches!(escaped, Some('\\' | '"' | 'n')), "no such escape: {full}");
            }
            _ => {}
        }
    }
    panic!("no closing quote: {full}")
}

fn word<'a>(text: &'a str, full: &str) -> &'a str {
    let good = |(at, c): (usize, char)| {
        c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit())
    };
    assert!(!text.is_empty() && text.char_indices().all(good), "{text} is no name: {full}");
    text
}

/// Buckets grow, and the last one is everything.
fn assert_histograms(series: &Series) {
    for (full, count) in series.iter().filter(|(full, _)| name_of(full).ends_with("_count")) {
        let bucket = full.replacen("_count", "_bucket", 1);
        let open = bucket.trim_end_matches('}').to_owned();
        let open = if open.contains('{') { format!("{open},") } else { format!("{open}{{") };
        let infinite = format!("{open}le=\"+Inf\"}}");
        assert_eq!(series.get(&infinite), Some(count), "{infinite} must equal {full}");
        let mut bounds: Vec<(f64, f64)> = series
            .iter()
            .filter_map(|(name, value)| {
                let bound = name.strip_prefix(&format!("{open}le=\""))?.strip_suffix("\"}")?;
                Some((bound.parse().unwrap(), *value))
            })
            .collect();
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(bounds.is_sorted_by(|a, b| a.1 <= b.1), "buckets must grow: {full}");
    }
}
