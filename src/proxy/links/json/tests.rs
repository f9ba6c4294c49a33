//! The walk through a document, beside a parser that is trusted.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn path(steps: &[&str]) -> LinkPath {
    let step = |step: &&str| match *step {
        "*" => Step::Each,
        key => Step::Key(key.into()),
    };
    LinkPath { steps: steps.iter().map(step).collect(), kind: LinkKind::Url }
}

fn texts(body: &str, paths: &[&[&str]]) -> Option<Vec<String>> {
    let paths: Vec<_> = paths.iter().map(|steps| path(steps)).collect();
    Some(find(body, &paths)?.into_iter().map(|found| found.text.into_owned()).collect())
}

#[test]
fn only_strings_at_the_paths_are_found_whatever_stands_around_them() {
    for (body, paths, expected) in [
        (r#"{"next":"a"}"#, &[&["next"][..]][..], &["a"][..]),
        (r#" { "x" : {"next":"no"} , "next" : "a" } "#, &[&["next"]], &["a"]),
        (r#"{"next":null,"nexT":"no","next ":"no"}"#, &[&["next"]], &[]),
        (r#"{"next":{"next":"no"},"list":["no",{"next":"no"}]}"#, &[&["next"]], &[]),
        (r#"{"a":{"b":{"c":"1","d":"no"},"c":"no"}}"#, &[&["a", "b", "c"]], &["1"]),
        (
            r#"{"s":[{"e":"1"},{"x":0},{"e":"2"},[{"e":"no"}]],"e":"no"}"#,
            &[&["s", "*", "e"]],
            &["1", "2"],
        ),
        (r#"[{"n":"1"},{"n":"2"}]"#, &[&["*", "n"]], &["1", "2"]),
        (r#"["1",["2"],{"n":"no"}]"#, &[&["*"], &["*", "*"]], &["1", "2"]),
        (r#"{"a":"1","b":{"a":"2"}}"#, &[&["b", "a"], &["a"]], &["1", "2"]),
        (r#"{"next":"1","next":"2"}"#, &[&["next"]], &["1", "2"]),
        (
            r#"{"\u006eext":"https:\/\/a\u002fb\ud83d\ude00"}"#,
            &[&["next"]],
            &["https://a/b\u{1f600}"],
        ),
        (r#"{"next":"\ud83d","x":"\ude00\ud83d"}"#, &[&["next"], &["x"]], &[]),
        (r#"{"next":[],"x":{},"y":[[]],"z":-1.5e+9,"t":true,"f":false}"#, &[&["next"]], &[]),
        (r#""next""#, &[&["next"]], &[]),
    ] {
        let expected: Vec<_> = expected.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(texts(body, paths), Some(expected), "{body}");
    }
}

#[test]
fn what_is_no_json_is_not_edited() {
    for body in [
        "",
        " ",
        "{",
        "}",
        "[",
        r#"{"next""#,
        r#"{"next":"#,
        r#"{"next":"a"#,
        r#"{"next":"a""#,
        r#"{"next":"a",}"#,
        r#"{"next":"a"}x"#,
        r#"{"next":"a"}{}"#,
        r#"{next:"a"}"#,
        r#"{'next':'a'}"#,
        r#"{"next" "a"}"#,
        r#"["a" "b"]"#,
        "[1,]",
        "[,1]",
        r#"{"next":"a"]"#,
        r#"["a"}"#,
        "nul",
        "truex",
        r#"{"next":"\x"}"#,
        r#"{"next":"\u12"}"#,
        r#"{"next":"\u12g4"}"#,
        "{\"next\":\"a\nb\"}",
        "for(;;);{\"next\":\"a\"}",
        "\u{feff}{}",
        "{\"a\":1}\n{\"a\":2}",
        "<html>",
    ] {
        assert_eq!(texts(body, &[&["next"]]), None, "{body}");
    }
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(texts(&deep(DEPTH_MAX), &[&["next"]]).is_some());
    assert!(texts(&deep(DEPTH_MAX + 2), &[&["next"]]).is_none());
    assert!(texts(&"[".repeat(1_000_000), &[&["*"]]).is_none());
}

#[test]
fn a_list_of_very_many_addresses_is_found_up_to_the_bound() {
    let body = format!("[{}\"a\"]", "\"a\",".repeat(FOUND_MAX + 10));
    assert_eq!(texts(&body, &[&["*"]]).unwrap().len(), FOUND_MAX);
}

#[test]
fn the_beginning_of_a_string_is_found_as_it_is_written() {
    let body = r#"{"next":"https:\/\/a\u002fb\ud83d\ude00c"}"#;
    let found = find(body, &[path(&["next"])]).unwrap().remove(0);
    for (taken, expected) in [
        (0, ""),
        (8, r"https:\/\/"),
        (10, r"https:\/\/a\u002f"),
        (15, r"https:\/\/a\u002fb\ud83d\ude00"),
        (16, r"https:\/\/a\u002fb\ud83d\ude00c"),
        (99, r"https:\/\/a\u002fb\ud83d\ude00c"),
    ] {
        assert_eq!(&body[found.head(body, taken)], expected, "{taken}");
    }
}

/// Any document, with keys that meet the paths often.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}|.{0,8}".prop_map(Value::from),
        "https://api\\.example/[a-z\"\\\\\u{fc}\u{1f600}/]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("(a|b|c|\\PC{0,3})", inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Changes strings at the path by parsing and printing.
fn changed(value: &mut Value, steps: &[Step], change: &impl Fn(&str) -> String) {
    match (steps, value) {
        ([], Value::String(text)) => *text = change(text),
        ([Step::Key(key), rest @ ..], Value::Object(members)) => {
            if let Some(member) = members.get_mut(&**key) {
                changed(member, rest, change);
            }
        }
        ([Step::Each, rest @ ..], Value::Array(list)) => {
            list.iter_mut().for_each(|each| changed(each, rest, change));
        }
        _ => {}
    }
}

/// Written anew with blanks, `\/` and `\u` escapes that mean the same.
fn disguised(text: &str) -> String {
    let text = text.replace('/', "\\/").replace('h', "\\u0068");
    text.replace(",\"", " ,\n\t\"")
}

const PATHS: [&[&str]; 6] =
    [&["a"], &["a", "b"], &["*"], &["a", "*", "b"], &["b", "*"], &["c", "c", "c"]];

proptest! {
    #[test]
    fn editing_the_text_is_the_same_as_parsing_changing_and_printing(
        document in document(),
        disguise in any::<bool>(),
    ) {
        let paths: Vec<_> = PATHS.iter().map(|steps| path(steps)).collect();
        let printed = document.to_string();
        let body = if disguise && !printed.contains("\\\\") { disguised(&printed) } else { printed };
        // A disguise may change what strings say, never what the document is made of.
        let Ok(mut expected) = serde_json::from_str::<Value>(&body) else { return Ok(()) };
        let change = |text: &str| match text.strip_prefix("https://api.example") {
            Some(rest) => format!("http://localhost:8080/a\"p{rest}"),
            None => text.to_owned(),
        };
        for path in &paths {
            changed(&mut expected, &path.steps, &change);
        }

        let found = find(&body, &paths).expect("it is JSON");
        let edits: Vec<_> = found
            .iter()
            .filter(|found| found.text.starts_with("https://api.example"))
            .map(|found| (found.head(&body, 19), escaped("http://localhost:8080/a\"p")))
            .collect();
        let new = crate::proxy::links::spliced(&body, &edits);

        prop_assert_eq!(serde_json::from_str::<Value>(&new).unwrap(), expected);
        if edits.is_empty() {
            prop_assert_eq!(new, body);
        }
    }

    #[test]
    fn no_text_makes_it_panic_and_what_a_parser_takes_it_takes(
        body in "([\\[\\]{},:\"\\\\ ]|\"a\"|\"b\"|true|null|1|\\\\u00e9|\u{fc}|.){0,40}",
    ) {
        let paths: Vec<_> = PATHS.iter().map(|steps| path(steps)).collect();
        let found = find(&body, &paths);
        if serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok() {
            prop_assert!(found.is_some(), "{body}");
        }
        for found in found.into_iter().flatten() {
            prop_assert!(body.get(found.range.clone()).is_some());
            for taken in 0..=found.text.len() {
                prop_assert!(body.get(found.head(&body, taken)).is_some());
            }
        }
    }
}
