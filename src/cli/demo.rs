//! `forbear demo`: puts the real forbear in front of the demo's API.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::complain;
use crate::admin::backend::Backend;
use crate::config;
use crate::demo::scenario::Scenario;
use crate::demo::{self, Afterwards, Proxy, ProxyHandle};
use crate::sidecar::Sidecar;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::view::UpstreamView;
use crate::telemetry::writer::LogWriter;

/// Listeners on whatever ports are free; nothing is logged over the demo's own output.
const LISTENERS: &str = "
[proxy]
listen = \"127.0.0.1:0\"
[admin]
listen = \"127.0.0.1:0\"
";

/// Runs the demo; exit code 1 if the job through forbear lost anything.
pub fn demo(exit: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("no runtime could be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let afterwards = if exit { Afterwards::Exit } else { Afterwards::Stay };
    match runtime.block_on(demo::run(&RealProxy, afterwards)) {
        Ok(conclusion) => conclusion.into(),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

struct RealProxy;

impl Proxy for RealProxy {
    async fn start(&self, upstream_url: &str) -> Result<ProxyHandle, String> {
        let text = format!("{LISTENERS}{}", Scenario::proxy_config(upstream_url));
        let loaded = config::load_str(&text, "demo.toml", &config::process_environment)
            .map_err(|problems| problems.to_string())?;
        let metrics = Arc::new(Metrics::new());
        let log = LogWriter::start(std::io::sink(), metrics.log_lines_dropped.clone())
            .map_err(|error| error.to_string())?;
        let sidecar =
            Sidecar::start(loaded, None, metrics, log).map_err(|error| error.to_string())?;
        let proxy = sidecar.proxy_address().ok_or("no listener")?;
        let control = sidecar.control().clone();
        Ok(ProxyHandle {
            base_url: format!("http://{proxy}/demo"),
            admin_url: format!("http://{}", sidecar.admin_address()),
            waiting_for: Box::new(move || control.upstreams().first().and_then(waiting_for)),
            stop: Box::pin(sidecar.drain(tokio::time::sleep(Duration::ZERO))),
        })
    }
}

fn waiting_for(upstream: &UpstreamView) -> Option<String> {
    let seconds = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    let breaker = upstream.breaker.iter().find_map(|breaker| breaker.open_remaining_ms);
    let cooldown = upstream.cooldowns.iter().map(|cooldown| cooldown.remaining_ms).max();
    let quota = upstream.quotas.iter().filter(|quota| quota.remaining == 0);
    let pacing = quota.filter_map(|quota| quota.reset_in_ms).max();
    breaker
        .map(|ms| format!("breaker {}", seconds(ms)))
        .or_else(|| cooldown.map(|ms| format!("cooldown {}", seconds(ms))))
        .or_else(|| pacing.map(|ms| format!("pacing {}", seconds(ms))))
}
