//! What a reload or a restart finds: who waits keeps the place, and what went of a limit that the
//! operator set counts against the new one.

use rustix::process::Signal;

use crate::reload::{api, ask, assert_all_answered, assert_applied, hang, upstream};
use crate::support::binary::Binary;
use crate::support::raw::RawClient;

#[tokio::test]
async fn those_in_line_keep_their_place() {
    let api = api().await;
    let binary = Binary::start(&upstream(&api, "in_flight_max = 1")).await;
    let (mut clients, releases) = hang(&binary, &api, 1).await;
    for (n, queued) in (2..=6).zip(1..) {
        clients.extend(ask(&binary, 1, &format!("/api/items/{n}")).await);
        binary.until_view("api", "one more in line", |view| view["queued"] == queued).await;
    }
    // Whatever concerns the line, but its length.
    let more = "[upstreams.more]\nurl = \"http://localhost:1\"\n";
    for settings in [
        "in_flight_max = 1\nmax_wait = \"59s\"\n[upstreams.api.breaker]\nsamples_min = 7\n",
        "in_flight_max = 1\nqueue_max = 50\n[[upstreams.api.routes]]\nname = \"search\"\nmatch = \"/search\"\n",
        "in_flight_max = 1\n",
    ] {
        let answer = binary.reload(&format!("{}{more}", upstream(&api, settings))).await;
        assert_applied(&answer, "upstreams.");
        // Who comes later stands behind them, by the new settings as well.
        binary.until_view("api", "all still in line", |view| view["queued"] == 5).await;
    }
    clients.extend(ask(&binary, 1, "/api/items/7").await);
    binary.until_view("api", "one behind them", |view| view["queued"] == 6).await;
    releases[0].notify_one();
    assert_all_answered(clients).await;
    let order: Vec<_> = api.log().iter().map(|record| record.target.clone()).collect();
    let expected: Vec<_> = (1..=7).map(|n| format!("/items/{n}")).collect();
    assert_eq!(order, expected);
}

#[tokio::test]
async fn what_went_of_a_quota_counts_against_its_new_limit() {
    let api = api().await;
    let quota = |requests: u32, per: &str| {
        let quota = format!(
            "[[upstreams.api.quotas]]\nname = \"all\"\nrequests = {requests}\nper = \"{per}\""
        );
        upstream(&api, &quota)
    };
    let mut binary = Binary::start(&quota(100, "1h")).await;
    let mut went = 0;
    for (requests, per, is_restart) in [
        (40, "1h", false),
        (50, "1h", false),
        // Another window, but no new one: the same requests went in it.
        (60, "2h", false),
        (65, "30m", false),
        (70, "30m", true),
        (80, "1h", true),
        (10, "1h", false),
    ] {
        if is_restart {
            binary.signal(Signal::KILL);
            binary.ended().await;
            let folder = binary.into_folder();
            binary = Binary::start_with(folder, &quota(requests, per)).await;
        } else {
            assert_eq!(binary.reload(&quota(requests, per)).await.status, 200);
        }
        while went < requests {
            let answer = binary.get("/api/items/2").await;
            assert_eq!(answer.status, 200, "{went} of {requests}: {}", answer.text());
            went += 1;
        }
        let mut client = RawClient::connect(binary.proxy()).await;
        let asked = "GET /api/items/2 HTTP/1.1\r\nHost: localhost\r\nForbear-Wait: none\r\n\r\n";
        let refused = client.ask(asked).await;
        assert_eq!(refused.status, 429, "{requests} per {per}: {}", refused.text());
        assert_eq!(api.counters().requests, went, "{requests} per {per}");
        // Asking the ledger writes what went before.
        binary.admin_get("/api/v1/exchanges?last=1").await;
    }
}
