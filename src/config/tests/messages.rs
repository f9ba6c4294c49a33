//! Wrong files, and exactly what is said about them.

use super::super::problem::Severity;
use super::*;

#[test]
fn each_problem_names_the_place_the_reason_and_the_fix() {
    for (text, expected) in [
        (
            "[upstreams.a.retry]\nattempts_max = 0\n",
            "config.toml:2:16: upstreams.a.retry.attempts_max: found 0, but the first attempt counts, so 0 would send nothing. Write 1 to switch retries off, or 3 for two retries.",
        ),
        (
            "[upstreams.a]\nretry = { attempts_max = 2, backof = 1 }\n",
            "config.toml:2:29: upstreams.a.retry.backof: there is no such setting. Did you mean backoff?",
        ),
        (
            "[[upstreams.a.routes]]\nname = \"x\"\nmatch = \"/x\"\nmx_wait = \"1s\"\n",
            "config.toml:4:1: upstreams.a.routes.x.mx_wait: there is no such setting. Did you mean max_wait?",
        ),
        (
            "[upstreams.a]\nmax_retries = 3\n",
            "config.toml:2:1: upstreams.a.max_retries: there is no such setting. Write attempts_max below [upstreams.a.retry].",
        ),
        (
            "[defaults]\nurl = \"https://b.example\"\n",
            "config.toml:2:1: defaults.url: there is no such setting. url belongs to one upstream: write it below [upstreams.NAME].",
        ),
        (
            "[upstreams.a]\nmax_wait = 30\n",
            "config.toml:2:12: upstreams.a.max_wait: found 30, but a duration needs its unit. Write \"30s\" if you mean seconds.",
        ),
        (
            "[limits]\nreplay_memory_max = 1024\n",
            "config.toml:2:21: limits.replay_memory_max: found 1024, but a size needs its unit. Write \"1024B\" if you mean bytes, or \"64KiB\".",
        ),
        (
            "[log]\nlevel = \"inf\"\n",
            "config.toml:2:9: log.level: found \"inf\", but there is no such choice. Did you mean \"info\"? Possible are \"error\", \"warn\", \"info\", \"debug\", \"trace\".",
        ),
        (
            "[upstreams.a]\nin_flight_max = 0\n",
            "config.toml:2:17: upstreams.a.in_flight_max: found 0, but with 0 nothing could ever be sent. Write 1 or more.",
        ),
        (
            "[upstreams.a.breaker]\nfailure_rate = 1.5\n",
            "config.toml:2:16: upstreams.a.breaker.failure_rate: found 1.5, but it is a share above 0 and at most 1. Write a share such as 0.5, or \"off\".",
        ),
        (
            "[upstreams.a.breaker]\nopen_for = \"15m\"\n",
            "config.toml:2:12: upstreams.a.breaker.open_for: found \"15m\", but the first open time (15m) would be longer than the longest (10m). Write an open_for_max of at least open_for.",
        ),
        (
            "[defaults.retry]\nbackoff_base = \"1m\"\n",
            "config.toml:2:16: defaults.retry.backoff_base: found \"60s\", but the first wait (60s) would be longer than the longest (30s). Write a backoff_max of at least backoff_base.",
        ),
        (
            "[upstreams.a]\nmax_wait = \"5s\"\nretry.backoff_base = \"10s\"\n",
            "config.toml:3:22: upstreams.a.retry.backoff_base: found \"10s\", but an exchange is held for 5s at most (max_wait), so it would never be repeated. Write a shorter backoff_base or a longer max_wait.",
        ),
        (
            "[upstreams.a.retry]\nsteps = [\"1s\"]\nbackoff = \"fixed\"\n",
            "config.toml:2:9: upstreams.a.retry.steps: found [\"1s\"], but backoff says how waits grow, too. Keep one of the two.",
        ),
        (
            "[upstreams.a]\nkey = \"ingestio\"\n[keys.ingestion]\nin_flight_max = 1\n",
            "config.toml:2:7: upstreams.a.key: found \"ingestio\", but no key of that name is declared. Did you mean \"ingestion\"? Declare it with [keys.ingestio] and in_flight_max.",
        ),
        (
            "[keys.ingestion]\n",
            "config.toml:1:7: keys.ingestion.in_flight_max: it is missing and has no default. Exchanges in flight at most that joined this key. Write in_flight_max = 1.",
        ),
        (
            "[keys.ingestion]\nordered = true\nin_flight_max = 2\n",
            "config.toml:3:17: keys.ingestion.in_flight_max: found 2, but exchanges of an ordered key are sent one by one. Write 1, or take ordered out.",
        ),
        (
            "[upstreams.b]\nurl = \"https://b.example\"\nprefix = \"/a\"\n",
            "config.toml:3:10: upstreams.b.prefix: found \"/a\", but upstreams.a.prefix is the same, and a path can lead to one upstream only. Write another prefix.",
        ),
        (
            "[upstreams.b]\nurl = \"https://b.example\"\nhosts = [\"x.example\", \"X.example\"]\n",
            "config.toml:3:9: upstreams.b.hosts: found \"x.example\", but it is listed in upstreams.b.hosts already. Keep it in one place.",
        ),
        (
            "[metrics]\nlisten = \"0.0.0.0:8081\"\n",
            "config.toml:2:10: metrics.listen: found \"0.0.0.0:8081\", but admin.listen listens there already. Write another port.",
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:9000\"\n",
            "config.toml:2:10: admin.listen: found \"0.0.0.0:9000\", but without a token everybody who can reach it could open breakers and stop the process. Write token = { file = \"/run/secrets/forbear-admin\" } below [admin], or listen on 127.0.0.1. For scraping from other machines, use [metrics].",
        ),
        (
            "[proxy]\nlisten = \":9000\"\n",
            "config.toml:2:10: proxy.listen: found \":9000\", but a listener needs an IP address and a port. Write \"127.0.0.1:9000\" for this machine alone, or \"0.0.0.0:9000\" for everybody who can reach it.",
        ),
        (
            "[upstreams.Bad]\nurl = \"ftp://b.example\"\n",
            "config.toml:1:12: upstreams.Bad: found the name \"Bad\", but names become parts of paths, headers and labels, with at most 64 characters. Begin with a lower-case letter or a digit, and go on with those, - and _.\nconfig.toml:2:7: upstreams.Bad.url: found \"ftp://b.example\", but only http and https are spoken. Write it like \"https://api.example.com\".",
        ),
        (
            "[[upstreams.a.routes]]\nname = \"default\"\nmatch = \"/x\"\n[[upstreams.a.routes]]\nname = \"x\"\nmatch = \"/x\"\n",
            "config.toml:2:8: upstreams.a.routes.default.name: found \"default\", but that name is taken. Write another name; requests that no route matches belong to the route default.\nconfig.toml:6:9: upstreams.a.routes.x.match: found \"/x\", but another route matches /x already. Keep one of the two.",
        ),
        (
            "[upstreams.a]\ncredential = { env = \"UNSET\" }\n",
            "config.toml:2:22: upstreams.a.credential.env: found \"UNSET\", but that environment variable is not set or is empty. Set it for this process, or name another variable. Its name stands here, not its value.",
        ),
        (
            "[upstreams.a]\ncredential = { header = \"Host\", env = \"TOKEN\" }\n",
            "config.toml:2:25: upstreams.a.credential.header: forbear sets or removes host itself. Name the header in which the API expects its key, such as \"authorization\".",
        ),
        (
            "[upstreams.a]\ncredential = { env = \"TOKEN\", file = \"./x\" }\n",
            "config.toml:2:22: upstreams.a.credential.env: file and env name two sources for one secret. Write exactly one of file = \"/run/secrets/NAME\" and env = \"NAME\".",
        ),
        (
            "[upstreams.a]\nclient_cert = \"./no-such-file\"\n",
            "config.toml:2:15: upstreams.a.client_cert: it is of no use without client_key. Write client_key = \"…\", too.\nconfig.toml:2:15: upstreams.a.client_cert: found \"./no-such-file\", but there is no such file. Create it, mount it, or correct the name.",
        ),
        (
            "[state.shared]\nurl = \"redis://localhost\"\n",
            "config.toml:1:8: state.shared: shared state is not available in this version. Take the table out: each sidecar then keeps what it learns in state.path.",
        ),
        (
            "[upstreams.a]\nin_flight_max = -1\n",
            "config.toml:2:17: upstreams.a.in_flight_max: found -1, but it cannot be negative. Write a number from 1 to 100000.",
        ),
        (
            "[upstreams.a]\nmax_wait = true\n",
            "config.toml:2:12: upstreams.a.max_wait: found true, but that is no duration. Write a number and a unit, such as \"250ms\", \"30s\", \"5m\", \"1h\" or \"7d\".",
        ),
        (
            "[upstreams.a]\ncredential_from = \"api_key\"\n",
            "config.toml:2:19: upstreams.a.credential_from: it does not say where the name stands. Write \"query:NAME\", \"cookie:NAME\" or \"header:NAME\".",
        ),
        (
            "[upstreams.a]\nmode = 3\n",
            "config.toml:2:8: upstreams.a.mode: found 3, but there is no such choice. Possible are \"enforce\", \"shadow\".",
        ),
        (
            "[[upstreams.a.quotas]]\nname = \"x\"\nlimits = \"defalt\"\nrequests = 1\nper = \"1s\"\n[[upstreams.a.quotas]]\nname = \"x\"\nrequests = 1\nper = \"1s\"\n",
            "config.toml:3:10: upstreams.a.quotas.x.limits: found \"defalt\", but no route and no bucket has that name. Did you mean \"default\"?\nconfig.toml:7:8: upstreams.a.quotas.x.name: found \"x\", but another quota has that name. Write another name; for a second limit of the same, with limits = \"x\".",
        ),
        (
            "[keys.k]\nordered = \"yes\"\n",
            "config.toml:2:11: keys.k.ordered: found \"yes\", but it is a choice between true and false. Write true or false, without quotes.",
        ),
        (
            "[proxy]\nlisten = \"127.0.0.1:99999\"\n",
            "config.toml:2:10: proxy.listen: found \"127.0.0.1:99999\", but ports end at 65535. Write \"127.0.0.1:8080\" for this machine alone, or \"0.0.0.0:8080\" for everybody who can reach it.",
        ),
        (
            "[upstreams.a]\nca_file = \"/proc/self/cmdline\"\n",
            "config.toml:2:11: upstreams.a.ca_file: there is no certificate in it in PEM. Name a file with a line -----BEGIN CERTIFICATE-----.",
        ),
        (
            "[log]\nlevel = info\n",
            "config.toml:2:9: that is neither a text in quotes nor a number, true or false. Put a text between double quotes, and nothing behind a value but a # and a comment.",
        ),
        (
            "[log]\nlevel = \"info\"\n[log]\nlevel = \"warn\"\n",
            "config.toml:3:2: that name is here for the second time. Keep one of the two, or give the other another name.",
        ),
        (
            "[proxy\n",
            "config.toml:1:7: unclosed table, expected `]`. See https://toml.io for the notation.",
        ),
    ] {
        let text = with_upstream_a(text);
        assert_eq!(problems(&text), expected, "{text}");
    }
}

/// Completes upstream `a` without moving a line that a message names.
fn with_upstream_a(text: &str) -> String {
    let Some((head, table)) = text.split_once("[upstreams.a]\n") else {
        return format!("{text}{SMALL}");
    };
    let end = table.find("\n[").map_or(table.len(), |end| end + 1);
    let (own, rest) = table.split_at(end);
    format!("{head}[upstreams.a]\n{own}url = \"https://a.example\"\n{rest}")
}

#[test]
fn an_address_that_could_be_read_two_ways_is_refused() {
    for (url, reason) in [
        ("a.example", "the scheme is missing"),
        ("https://", "the host is missing"),
        ("https:///x", "the host is missing"),
        ("https://u:p@a.example", "user name or password"),
        ("https://a.example?x=1", "a query"),
        ("https://a.example/#x", "a fragment"),
        ("https://a.example/x//y", "empty path segment"),
        ("https://a.example//", "empty path segment"),
        ("https://a.example/../x", "dot segments"),
        ("https://a.example/%2E%2e/x", "dot segments"),
        ("https://a.example/x%2Fy", "dot segments"),
        ("https://a.example/x%zz", "a character that cannot stand in a path"),
        ("https://a.example/x\\\\y", "a character that cannot stand in a path"),
        ("https://a.example:0", "its port"),
        ("https://a.example:99999", "its port"),
        ("https://a.example:", "its port"),
        ("https://a b.example", "no host name"),
        ("https://a..example", "no host name"),
        ("https://[::1", "no host name"),
        ("https://[zz]", "no IPv6 address"),
    ] {
        let told = problems(&format!("[upstreams.a]\nurl = \"{url}\"\n"));
        assert!(told.contains(reason) && told.lines().count() == 1, "{url}: {told}");
    }
    for prefix in ["a", "/a/", "//", "/a//b", "/./a", "/a/..", "/%61", "/a?b", "/a#b", "/a b"] {
        let told = problems(&format!("{SMALL}prefix = \"{prefix}\"\n"));
        assert!(told.starts_with("config.toml:3:10: upstreams.a.prefix: "), "{prefix}: {told}");
    }
    for pattern in
        ["x", "get /x", "GET  /x", "GET x", "/a*", "/**/a", "/a//b", "/../a", "/a?b", "G T /x"]
    {
        let told =
            problems(&format!("{SMALL}routes = [{{ name = \"x\", match = \"{pattern}\" }}]\n"));
        assert!(
            told.starts_with("config.toml:3:33: upstreams.a.routes.x.match: "),
            "{pattern}: {told}"
        );
    }
}

#[test]
fn one_problem_does_not_hide_another() {
    let told = problems(
        "[proxy]\nworkers = 0\nlistn = 1\n[upstreams.a]\nmax_wait = 1\n[log]\nformat = 3\n",
    );
    let places: Vec<&str> = told.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "config.toml:2:11",
            "config.toml:3:1",
            "config.toml:4:12",
            "config.toml:5:12",
            "config.toml:7:10"
        ]
    );
}

#[test]
fn several_mistakes_of_syntax_are_told_together() {
    let told =
        problems("[upstreams.a]\nurl = \"https://a.example\nmax_wait = 1s\n\n[log]\nlevel = = 3\n");
    assert!(told.lines().count() >= 2, "{told}");
}

#[test]
fn an_empty_file_is_answered_with_the_smallest_useful_one() {
    let told = problems("");
    assert_eq!(
        told,
        "config.toml:1:1: upstreams: there is none, so there is nowhere to send requests. Write at least these two lines:\n\n    [upstreams.github]\n    url = \"https://api.github.com\""
    );
}

#[test]
fn what_only_follows_from_a_broken_header_is_not_told() {
    let told = problems("[upstream.a]\nurl = \"https://a.example\"\n");
    assert_eq!(
        told,
        "config.toml:1:2: upstream: there is no such setting. Did you mean upstreams?"
    );
    let told = problems("[upstreams.a\nurl = \"https://a.example\"\n[log]\nlevel = 3\n");
    let places: Vec<&str> = told.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["config.toml:1:13", "config.toml:4:9"]);
}

#[test]
fn an_inherited_contradiction_is_told_once() {
    let text = "[defaults.breaker]\nopen_for = \"20m\"\n[upstreams.a]\nurl = \"https://a.example\"\n[upstreams.b]\nurl = \"https://b.example\"\n";
    assert_eq!(problems(text).lines().count(), 1);
}

#[test]
fn a_problem_is_shown_with_its_line_and_a_caret() {
    let Err(Problems(problems)) =
        load_with("[upstreams.a]\nurl = \"https://a.example\"\nmax_wait = 30\n")
    else {
        panic!("it loads");
    };
    let plain = anstream::adapter::strip_str(&problems[0].render(Severity::Error)).to_string();
    assert_eq!(
        plain.lines().skip(1).collect::<Vec<_>>(),
        ["3 | max_wait = 30", "  |            ^^"],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let missing = load(&folder.path().join("none.toml"), &|_| None).unwrap_err().to_string();
    assert!(
        missing.ends_with(
            "none.toml:1:1: there is no such file. Correct the name, or create the file: the two lines [upstreams.github] and url = \"https://api.github.com\" are enough."
        ),
        "{missing}"
    );
    assert!(load(folder.path(), &|_| None).unwrap_err().to_string().contains("that is a folder"));
    assert!(
        load(Path::new("/dev/zero"), &|_| None)
            .unwrap_err()
            .to_string()
            .contains("not a regular file")
    );
    std::fs::write(folder.path().join("latin"), b"# \xe4").unwrap();
    assert!(
        load(&folder.path().join("latin"), &|_| None).unwrap_err().to_string().contains("UTF-8")
    );
}

#[test]
fn what_is_doubtful_is_a_warning_and_no_problem() {
    let loaded = good(
        "[proxy]\nlisten = \"0.0.0.0:8080\"\n[upstreams.a]\nurl = \"https://api.github.com\"\n\
         quotas = [{ name = \"serach\", requests = 5, per = \"1h\" }, \
         { name = \"search\", requests = 5, per = \"1h\" }, \
         { name = \"all\", requests = 9, per = \"1h\" }]\n",
    );
    let settings: Vec<&str> =
        loaded.warnings.iter().map(|warning| warning.setting.as_str()).collect();
    assert_eq!(settings, ["proxy.listen", "upstreams.a.quotas.serach"]);
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for text in [
        format!("[admin]\ntoken = \"{CANARY}\"\n{SMALL}"),
        format!("[admin]\ntoken = {{ value = \"{CANARY}\" }}\n{SMALL}"),
        format!("[admin]\ntoken = {{ env = \"{CANARY}\" }}\n{SMALL}"),
        format!("[admin]\ntoken = {{ file = \"{CANARY}\" }}\n{SMALL}"),
        format!("[admin]\ntoken = \"{CANARY}\n{SMALL}"),
        format!("[admin]\ntoken = {CANARY}\n{SMALL}"),
        format!("{SMALL}credential = \"{CANARY}\"\n"),
        format!("{SMALL}credential = {{ header = \"x\", vale = \"{CANARY}\" }}\n"),
        format!("{SMALL}credential = {{ header = \"Bearer {CANARY}\" }}\n"),
        format!("{SMALL}[upstreams.a.credential]\nvalue = \"{CANARY}\n"),
        format!("{SMALL}[upstreams.a.credential]\nvalue = {CANARY}\n"),
        format!("{SMALL}value = {CANARY}\n"),
        format!("{SMALL}[upstreams.b]\nurl = \"https://user:{CANARY}@b.example\"\n"),
        format!("{SMALL}[upstreams.b]\nurl = \"https://b.example?key={CANARY}\"\n"),
        format!("{SMALL}[state.shared]\nurl = \"redis://:{CANARY}@localhost\"\n"),
    ] {
        let problems = load_with(&text).unwrap_err();
        let shown: String =
            problems.0.iter().map(|problem| problem.render(Severity::Error)).collect();
        let all =
            format!("{problems}{problems:?}{shown}{}", serde_json::to_string(&problems).unwrap());
        assert!(!all.contains(CANARY), "{text}\n{all}");
    }
}

#[test]
fn a_secret_that_cannot_be_sent_is_described_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, format!("{SMALL}credential = {{ file = \"./secret\" }}\n")).unwrap();
    for (content, reason) in [
        ("", "empty"),
        ("\n", "the secret there is empty"),
        ("s3cr3t\ncanary\n", "a line break inside"),
        ("s3cr3t\u{7}canary", "cannot stand in a header"),
        ("s3cr3t-cänary", "cannot stand in a header"),
        (" s3cr3t-canary\n", "begins or ends with a blank"),
    ] {
        std::fs::write(folder.path().join("secret"), content).unwrap();
        let told = format!("{:?}", load(&path, &|_| None).unwrap_err());
        assert!(told.contains(reason) && !told.contains("s3cr3t"), "{content:?}: {told}");
    }
}
