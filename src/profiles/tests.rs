//! Every profile against its own answers, and the reader against those of real APIs.

mod corpus;
mod hostile;

use super::*;

#[test]
fn every_embedded_profile_can_be_read_and_is_complete() {
    for Embedded { name, text, .. } in &EMBEDDED {
        let profile = parse(text, name).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(&*profile.name, *name);
        assert!(!profile.title.is_empty() && !profile.notes.is_empty(), "{name}");
        assert!(profile.docs.starts_with("https://"), "{name}: {}", profile.docs);
        assert!(
            !profile.origins.is_empty() || ["generic", "atlassian-dc"].contains(name),
            "{name}"
        );
    }
    assert_eq!(known().count(), EMBEDDED.len());
}

#[test]
fn every_file_of_the_folder_is_embedded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/profiles");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let embedded: Vec<_> = EMBEDDED.iter().map(|file| file.name.to_owned()).collect();
    assert_eq!(embedded, names);
}

#[test]
fn every_profile_reads_its_own_answers_refusals_and_look_alikes() {
    let mut wrong = Vec::new();
    for profile in known() {
        match profile.test() {
            Ok(count) => assert!(count >= 2, "{} has {count} fixtures", profile.name),
            Err(failures) => wrong.push((profile.name.clone(), failures)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_profile_has_an_answer_that_is_a_refusal_and_one_that_is_none() {
    for profile in known() {
        let limited = |fixture: &&file::Fixture| fixture.means == file::Answer::RateLimited;
        let refusals = profile.fixtures.iter().filter(limited).count();
        let name = &profile.name;
        let has_refusal = refusals > 0 || **name == *"reddit";
        assert!(has_refusal && refusals < profile.fixtures.len(), "{name}");
    }
}

#[test]
fn a_host_finds_its_profile_and_a_stranger_none() {
    let name = |host| for_host(host).map(|profile| profile.name.to_string());
    assert_eq!(name("api.github.com").as_deref(), Some("github"));
    assert_eq!(name("a-shop.myshopify.com").as_deref(), Some("shopify"));
    assert_eq!(name("sheets.googleapis.com").as_deref(), Some("google"));
    for stranger in ["example.com", "myshopify.com", "api.github.com.example", "localhost", ""] {
        assert_eq!(name(stranger), None, "{stranger}");
    }
    for profile in known() {
        for origin in &profile.origins {
            let host = origin.replace('*', "some.where");
            let found = for_host(&host).map(|found| &found.name);
            assert_eq!(found, Some(&profile.name), "{origin}");
        }
    }
    let mut origins: Vec<_> = known().flat_map(|profile| &profile.origins).collect();
    let count = origins.len();
    origins.sort();
    origins.dedup();
    assert_eq!(origins.len(), count, "two profiles want the same host");
}

#[test]
fn a_body_is_wanted_only_where_it_can_change_the_meaning() {
    let wants = |name: &str, status| find(name).unwrap().dialect.wants_body(status);
    for status in [400, 403, 429, 503] {
        assert!(wants("generic", status), "{status}");
    }
    for status in [200, 204, 304, 401, 404, 500] {
        assert!(!wants("generic", status), "{status}");
    }
    assert!(wants("github", 200) && wants("slack", 200) && wants("shopify", 200));
    assert!(!wants("openai", 200) && !wants("azure-openai", 200));
}

#[test]
fn a_file_can_extend_a_known_profile() {
    let text = r#"
        extends = "kucoin"
        origins = ["exchange.example"]
        retry_after_unit = "ms"
        [[signatures]]
        statuses = [403]
        texts = ["slow down"]
        means = "rate_limited"
        wait = "9s"
        [[fixtures]]
        name = "words of its own"
        status = 403
        body = "Slow down, please"
        means = "rate_limited"
        wait = "9s"
    "#;
    let own = parse(text, "./profiles/exchange.toml").unwrap();
    assert_eq!(&*own.name, "exchange");
    assert_eq!(own.origins, ["exchange.example"]);
    assert_eq!(own.dialect.reset_unit, Some(crate::policy::profile::Unit::Millis));
    assert_eq!(own.test(), Ok(3));
}

#[test]
fn a_path_to_an_address_has_steps_and_escapes() {
    use crate::policy::profile::{LinkKind, LinkPath, Step};
    let text = r#"
        extends = "bluesky"
        next_links = ['@odata\.nextLink', 'a.*.b', '\*']
        next_paths = ["next"]
    "#;
    let links = &parse(text, "mine.toml").unwrap().dialect.links;
    let key = |name: &str| Step::Key(name.into());
    let session = [key("didDoc"), key("service"), Step::Each, key("serviceEndpoint")];
    for (steps, kind) in [
        (vec![key("@odata.nextLink")], LinkKind::Url),
        (vec![key("a"), Step::Each, key("b")], LinkKind::Url),
        (vec![key("*")], LinkKind::Url),
        (vec![key("next")], LinkKind::UrlOrPath),
        (session.to_vec(), LinkKind::Session),
    ] {
        let path = LinkPath { steps, kind };
        assert!(links.contains(&path), "{path:?} in {links:?}");
    }
    assert_eq!(links.len(), 5);
    let many = format!("next_links = {:?}", vec!["a"; 65]);
    assert!(parse(&many, "mine.toml").unwrap_err().contains("more than 64 paths"));
}

#[test]
fn a_host_is_one_of_the_apis_own_or_it_is_not() {
    let bluesky = &find("bluesky").unwrap().dialect;
    assert!(bluesky.has_origin("bsky.social") && bluesky.has_origin("a.us.host.bsky.network"));
    for other in ["host.bsky.network", ".host.bsky.network", "bsky.social.example", "pds.example"] {
        assert!(!bluesky.has_origin(other), "{other}");
    }
}

#[test]
fn a_file_that_means_nothing_is_refused_with_a_reason() {
    for (text, reason) in [
        ("colour = 1", "unknown field `colour`"),
        ("extends = \"githup\"", "Did you mean \"github\"?"),
        ("attempt_timeout = \"soon\"", "no time such as"),
        ("next_links = [\"a..b\"]", "no path such as"),
        ("session_links = [\"\"]", "`session_links`"),
        ("next_paths = ['a\\']", "no path such as"),
        ("idempotency_key = \"my key\"", "cannot be the name of a field"),
        ("[[signatures]]\nmeans = \"ok\"", "without any sign"),
        ("[[signatures]]\nstatuses = [\"4xx\"]", "no range of statuses"),
        ("[[fields]]\nname = \"x\"\nform = \"list\"", "needs of ="),
        ("[[fields]]\nname = \"x\"\nform = \"lsit\"", "unknown variant"),
    ] {
        let problem = parse(text, "mine.toml").unwrap_err();
        assert!(problem.starts_with("mine.toml: ") && problem.contains(reason), "{problem}");
    }
    assert!(open("nobody").unwrap_err().contains("forbear profile list"));
    assert!(open("./no/such.toml").unwrap_err().contains("cannot be read"));
}

#[test]
fn a_wrong_fixture_is_told_with_what_was_read() {
    let text = "[[fixtures]]\nname = \"wrong\"\nstatus = 429\nmeans = \"ok\"\n";
    let failures = parse(text, "mine.toml").unwrap().test().unwrap_err();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].read, "rate_limited, limited, no wait, ? of ? left");
}

#[test]
fn the_readme_has_the_table_of_all_profiles() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = page::MARKS;
    let (before, rest) = readme.split_once(begin).expect("the mark of the begin");
    let (found, after) = rest.split_once(end).expect("the mark of the end");
    let table = page::table();
    if crate::config::process_environment("FORBEAR_WRITE_README").is_some() {
        std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
        return;
    }
    assert!(
        found == table,
        "README.md is out of date; write it anew with\n  FORBEAR_WRITE_README=1 cargo test --lib \
         the_readme_has_the_table"
    );
}
