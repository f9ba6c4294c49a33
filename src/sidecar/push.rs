//! Puts what was counted where something like a Pushgateway keeps it, once, at the end of the process.
//!
//! A job that is over before it was scraped twice would otherwise leave no trace in Prometheus. Only
//! counters and histograms go: a gauge tells of a state that ends with the process, and kept for ever
//! it would hold up an alert that nobody can end. <https://github.com/prometheus/pushgateway#put-method>

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::time::timeout;

use super::report::{NotSent, Report};
use crate::config::settings::{PushSettings, TlsConfig};
use crate::telemetry::scrape;
use crate::transport::Target;

/// Connecting and sending together. A kubelet may grant two seconds from SIGTERM on.
const PUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// Sends `text`, and tells how that went. A failure changes nothing else: the work is done.
pub(super) async fn run(settings: &PushSettings, text: String) {
    let host = &settings.origin.host;
    let bytes = text.len();
    let pushed = timeout(PUSH_TIME_MAX, put(settings, text)).await;
    match pushed.unwrap_or_else(|_| Err(format!("it takes longer than {PUSH_TIME_MAX:?}"))) {
        Ok(()) => tracing::info!(host, bytes, "metrics pushed"),
        Err(why) => tracing::warn!(host, why, "metrics could not be pushed and are lost"),
    }
}

async fn put(settings: &PushSettings, text: String) -> Result<(), String> {
    let PushSettings { origin, path, instance, headers } = settings;
    let target = Target::new(origin, &TlsConfig::default(), 2 * PUSH_TIME_MAX);
    let target = Arc::new(target.map_err(|error| error.to_string())?);
    let path = if *instance { format!("{path}/instance/{}", machine()) } else { path.clone() };
    let report = Report {
        method: Method::PUT,
        origin,
        path,
        headers,
        content_type: scrape::CONTENT_TYPE,
        body: text.into(),
        // Only the whole is bounded, so that whoever reads the log finds one reason for being late.
        time_max: 2 * PUSH_TIME_MAX,
    };
    let answer = report.send(&target).await.map_err(|error| match error {
        NotSent::Illegal(what) => what.to_owned(),
        NotSent::Failed(why) => why,
    })?;
    if answer.status.is_success() {
        return Ok(());
    }
    Err(format!("the answer was {}", answer.status))
}

/// The name of this machine, which in a pod is the pod's. Whatever could not stand in a path is left out.
fn machine() -> String {
    let name = rustix::system::uname();
    let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = name.nodename().to_string_lossy().chars().filter(legal).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}
