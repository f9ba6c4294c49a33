//! The house rules that no compiler checks: who may know whom, who reads clocks and the
//! environment, how long a file may be.
//!
//! Sources are read as text. Comments and string literals are blanked first, and so is the module
//! of tests at the end: tests may do what the code may not. Every broken rule is one sentence with
//! file, line and rule.

use std::path::{Path, PathBuf};

use forbear::telemetry::names::CATALOGUE;

/// Lines of a source file at most; tests beyond that go into a file of their own.
const LINES_MAX: usize = 400;

/// One source file.
struct Source {
    /// Such as `policy/line.rs`.
    path: String,
    /// As it is.
    text: String,
    /// Without comments, literals and tests, line by line.
    code: Vec<String>,
}

/// Everything under `src` that is not a test.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let sources: Vec<_> = found
        .iter()
        .map(|file| {
            let path = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(file).unwrap();
            let code = without_words(&text).lines().map(str::to_owned).collect();
            Source { path, text, code }
        })
        .filter(|source| !source.path.contains("/tests/") && !source.path.ends_with("/tests.rs"))
        .collect();
    assert!(sources.len() > 100, "the sources were not found");
    sources
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

/// What stands before the module of tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
}

/// Blanks comments and literals, ends at the tests; lines stay where they are.
fn without_words(text: &str) -> String {
    let text = product(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if c == '"' {
            literal(rest)
        } else if let Some(hashes) = raw(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2;
            rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len())
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") || rest.starts_with("'\\\\'") {
            4
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        let (blanked, after) = rest.split_at(length);
        out.extend(blanked.chars().filter(|c| *c == '\n'));
        rest = after;
    }
    out
}

/// Bytes of the string literal at the start.
fn literal(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The number of `#` of the raw string at the start, if there is one.
fn raw(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Whether `word` stands in `line` by itself: not within a longer name.
fn names(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c == '_' || c.is_alphanumeric());
    line.match_indices(word).any(|(at, _)| {
        !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next())
    })
}

/// Every line where one of `words` is named in a file that `applies`, as a sentence with `rule`.
fn offences(words: &[&str], rule: &str, applies: impl Fn(&str) -> bool) -> Vec<String> {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| applies(&source.path)) {
        for (at, line) in source.code.iter().enumerate() {
            for word in words.iter().filter(|word| names(line, word)) {
                offences.push(format!("src/{}:{} names {word}: {rule}.", source.path, at + 1));
            }
        }
    }
    offences
}

fn assert_none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

fn in_folder(folder: &'static str) -> impl Fn(&str) -> bool {
    move |path| path.starts_with(&format!("{folder}/"))
}

#[test]
fn the_reader_of_sources_sees_code_and_nothing_else() {
    let text = "a(\"tokio \\\" \"); // tokio\nr#\"tokio\n\"#; 'x'; '\"'; b\n#[cfg(test)]\nmod tests {\ntokio\n";
    let code = without_words(text);
    assert_eq!(code.lines().collect::<Vec<_>>(), ["a(); ", "", "; 'x'; ; b"]);
    assert!(names("use tokio::net", "tokio") && !names("tokio_util", "tokio"));
}

#[test]
fn policy_is_pure() {
    const IMPURE: [&str; 10] = [
        "tokio",
        "hyper",
        "tracing",
        "prometheus",
        "std::net",
        "std::fs",
        "std::thread",
        "Mutex",
        "Instant",
        "SystemTime",
    ];
    let rule = "policy decides from facts that it is given, without I/O, locks, logs or clocks";
    assert_none(&offences(&IMPURE, rule, in_folder("policy")));
}

#[test]
fn policy_knows_http_only_where_responses_are_read() {
    let rule = "in policy only classify and hints read HTTP";
    let reads_it = |path: &str| path == "policy/classify.rs" || path.starts_with("policy/hints");
    let applies = |path: &str| path.starts_with("policy/") && !reads_it(path);
    assert_none(&offences(&["http"], rule, applies));
}

#[test]
fn policy_knows_nobody() {
    let others =
        ["config", "gateway", "proxy", "serve", "admin", "sidecar", "cli", "transport", "simulate"];
    let paths: Vec<_> = others.iter().map(|module| format!("crate::{module}")).collect();
    let words: Vec<_> = paths.iter().map(String::as_str).collect();
    assert_none(&offences(&words, "policy knows nobody", in_folder("policy")));
}

#[test]
fn simulate_decides_nothing_and_sends_nothing() {
    let words = [
        "tokio",
        "std::net",
        "crate::transport",
        "crate::serve",
        "crate::admin",
        "crate::sidecar",
        "crate::cli",
    ];
    let rule = "simulate drives the policy under a virtual clock, without runtime or sockets";
    assert_none(&offences(&words, rule, in_folder("simulate")));
}

#[test]
fn transport_carries_bytes_and_knows_no_policy() {
    let rule = "transport never sees policy; proxy/attempts.rs is where they meet";
    assert_none(&offences(&["policy"], rule, in_folder("transport")));
}

#[test]
fn clocks_are_read_in_one_place() {
    const READERS: [(&str, &str); 3] = [
        ("gateway/clock.rs", "it is the one clock of everything that decides"),
        ("io.rs", "it bounds waits for I/O, which no policy sees"),
        ("demo/clock.rs", "the fake API and its job measure forbear from outside"),
    ];
    let is_reader = |path: &str| READERS.iter().any(|(reader, _)| *reader == path);
    let rule = "only gateway/clock.rs reads a clock";
    let clocks = ["Instant::now", "SystemTime::now"];
    assert_none(&offences(&clocks, rule, |path| !is_reader(path)));
}

#[test]
fn only_config_reads_the_environment() {
    let rule = "only config reads the environment, so that every variable is documented there";
    let words = ["env::var", "env::vars", "env::var_os"];
    assert_none(&offences(&words, rule, |path| !path.starts_with("config/")));
}

#[test]
fn every_channel_has_a_bound() {
    let words = ["unbounded_channel", "UnboundedSender", "std::sync::mpsc::channel"];
    assert_none(&offences(&words, "a channel without a bound is a leak", |_| true));
}

#[test]
fn metric_names_are_written_once() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.path != "telemetry/names.rs") {
        for (at, line) in product(&source.text).lines().enumerate() {
            for def in CATALOGUE.iter().filter(|def| line.contains(&format!("\"{}", def.name))) {
                found.push(format!(
                    "src/{}:{} writes {}: metrics are named in telemetry/names.rs alone.",
                    source.path,
                    at + 1,
                    def.name
                ));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let long = sources().into_iter().filter_map(|source| {
        let lines = source.text.lines().count();
        let said = format!(
            "src/{}:{lines} is the last of {lines} lines, and {LINES_MAX} are the most: it is two ideas.",
            source.path
        );
        (lines > LINES_MAX).then_some(said)
    });
    assert_none(&long.collect::<Vec<_>>());
}

#[test]
fn every_file_says_what_it_is() {
    let silent =
        sources().into_iter().filter(|source| !source.text.starts_with("//! ")).map(|source| {
            format!(
                "src/{}:1 does not begin with //!: a file says what it is and why.",
                source.path
            )
        });
    assert_none(&silent.collect::<Vec<_>>());
}

#[test]
fn no_tracked_file_names_a_machine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = std::process::Command::new("git").args(["ls-files"]).current_dir(root).output();
    let Some(listed) = listed.ok().filter(|output| output.status.success()) else {
        println!("skipped: this is no git checkout");
        return;
    };
    // Put together here, so that this file does not name them.
    let homes = ["/work", "/home", "/root", "/Users"].map(|folder| format!("{folder}/"));
    let mut found = Vec::new();
    for name in String::from_utf8(listed.stdout).unwrap().lines() {
        let Ok(text) = std::fs::read_to_string(root.join(name)) else { continue };
        for (at, line) in text.lines().enumerate() {
            let path = homes.iter().any(|home| {
                line.match_indices(home.as_str()).any(|(at, _)| {
                    !line[..at]
                        .chars()
                        .next_back()
                        .is_some_and(|c| c.is_alphanumeric() || "/}*.".contains(c))
                })
            });
            let host = line.starts_with("registry = ") || line.contains("registry+http");
            let crates_io = line.contains("registry+https://github.com/rust-lang/crates.io-index");
            if (path || (host && !crates_io)) && name != "tests/it/architecture.rs" {
                found.push(format!("{name}:{} names a machine: {line}.", at + 1));
            }
        }
    }
    assert_none(&found);
}
