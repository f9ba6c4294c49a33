//! The whole demo, small: a proxy that is none, and an API without waits.

use super::settings::Faults;
use super::*;

/// Hands back the API's own URL.
struct NoProxy;

impl Proxy for NoProxy {
    async fn start(&self, upstream_url: &str) -> Result<ProxyHandle, String> {
        Ok(ProxyHandle {
            base_url: upstream_url.to_owned(),
            admin_url: "http://127.0.0.1:8081".to_owned(),
            waiting_for: Box::new(|| None),
            stop: Box::pin(async {}),
        })
    }
}

/// Twelve items of an API that does nothing but this.
async fn shown(faults: Faults) -> (Conclusion, String) {
    let scenario = Scenario {
        api: ApiSettings { faults, ..ApiSettings::default() },
        items: 12,
        workers: 3,
        fixed_wait: Duration::from_millis(1),
        ..Scenario::standard()
    };
    let mut out = Vec::new();
    let mut screen = Screen::new(&mut out, Live::Quarters);
    let conclusion =
        show(&mut screen, &scenario, &NoProxy, Afterwards::Exit).await.expect("the demo runs");
    (conclusion, anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string())
}

#[tokio::test]
async fn a_job_that_gets_everything_is_a_success() {
    let (conclusion, text) = shown(Faults::default()).await;
    assert_eq!(conclusion, Conclusion::GotAll);
    assert!(text.contains("the job got all 12 items"), "{text}");
}

#[tokio::test]
async fn an_item_lost_behind_the_proxy_is_a_failure_that_is_told() {
    let faults = Faults { reset_every: Some(5), error_every: None };
    let (conclusion, text) = shown(faults).await;
    assert_eq!(conclusion, Conclusion::Lost(2));
    assert!(text.contains("lost 2 of 12 items"), "{text}");
    let lost = text.lines().find(|line| line.contains("items lost")).unwrap();
    let cells: Vec<_> = lost.split("  ").map(str::trim).filter(|it| !it.is_empty()).collect();
    assert_eq!(cells, ["items lost", "2 of 12", "0", "2 of 12"]);
}

#[test]
fn the_texts_fit_in_80_columns_and_say_what_will_happen() {
    let scenario = Scenario::standard();
    let text = introduction(&scenario, optimum(&scenario.api, scenario.items));
    let forbear = ProxyHandle {
        base_url: "http://127.0.0.1:65535/demo".to_owned(),
        admin_url: "http://127.0.0.1:65535".to_owned(),
        waiting_for: Box::new(|| None),
        stop: Box::pin(async {}),
    };
    for line in text.lines().chain(look_around(&forbear).lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for fact in ["80 requests per 2 s", "from 4 s to 6 s", "every 60th", "320 items", "8.02 s"] {
        assert!(text.contains(fact), "{fact}: {text}");
    }
}
