//! Sends what waits in the backlog of traces to the collector: OTLP over HTTP, as JSON.
//!
//! One task beside the control plane, which no request waits for. It collects for a second or up to
//! a batch, sends the batch, and repeats it a few times where the specification permits that; what
//! cannot be sent is dropped and counted, and the log tells of it once, not once per batch.
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};
use prometheus::IntCounter;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::report::{NotSent, Report};
use crate::config::settings::{Origin, TlsConfig, TracingSettings};
use crate::gateway::Live;
use crate::telemetry::trace::{BATCH_MAX, otlp};
use crate::transport::{Target, TargetError};

/// Spans are collected for this long before they are sent.
const COLLECT_TIME_MAX: Duration = Duration::from_secs(1);
/// A collector answers within milliseconds; OpenTelemetry's own exporters give it as long.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Sends of one batch at most, the first included: more would only delay the next one.
const SENDS_MAX: u32 = 4;
/// The first pause between them; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
/// A collector that asks for a longer pause than this loses the batch.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The last batches get this long at the end of the process. A kubelet may grant two seconds.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// Sends what is told until `ending`, and then what still waits, within its time and once each.
pub(super) async fn run(live: Live, ending: watch::Receiver<bool>) {
    let mut end = ending.clone();
    let too_late = async {
        ended(&mut end).await;
        sleep(FLUSH_TIME_MAX).await;
    };
    let mut sender = Sender { live, ending, target: None, is_failing: false };
    tokio::select! {
        () = sender.work() => {}
        () = too_late => {
            tracing::warn!("the trace collector takes too long; the last spans are lost");
        }
    }
}

/// A sender that is gone means the same.
async fn ended(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

struct Sender {
    live: Live,
    ending: watch::Receiver<bool>,
    /// The collector as it was last used.
    target: Option<(Origin, Arc<Target>)>,
    /// The log was told that it fails.
    is_failing: bool,
}

/// Exchanges whose spans are not with the collector yet; counted as dropped if that stays so.
struct Pending {
    count: u64,
    dropped: IntCounter,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.dropped.inc_by(self.count);
    }
}

/// Why a batch was not taken.
struct Failed {
    why: String,
    /// How long to wait at least before it is sent again; `None` if that is of no use.
    again: Option<Duration>,
}

impl Sender {
    async fn work(&mut self) {
        let backlog = self.live.load().common.traces.clone();
        loop {
            let collected = async {
                backlog.until(1).await;
                // Whichever comes first: a full batch, or the end of its second.
                let _ = timeout(COLLECT_TIME_MAX, backlog.until(BATCH_MAX)).await;
            };
            let is_ending = tokio::select! {
                () = collected => false,
                () = ended(&mut self.ending) => true,
            };
            let is_empty = !self.batch().await;
            if is_ending && is_empty {
                return;
            }
        }
    }

    /// Sends one batch. False if there was none.
    async fn batch(&mut self) -> bool {
        let gateway = self.live.load_full();
        let batch = gateway.common.traces.take();
        if batch.is_empty() {
            return false;
        }
        let metrics = &gateway.common.metrics;
        let count = batch.len() as u64;
        let mut pending = Pending { count, dropped: metrics.traces_dropped.clone() };
        // A reload may have switched tracing off meanwhile.
        let Some(settings) = &gateway.settings.tracing else { return true };
        let body = Bytes::from(otlp::export(&settings.service_name, &batch));
        drop(batch);
        match self.send(settings, &body).await {
            Ok(()) => {
                pending.count = 0;
                metrics.traces_exported.inc_by(count);
                if std::mem::replace(&mut self.is_failing, false) {
                    tracing::info!("the trace collector takes spans again");
                }
            }
            Err(why) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    let host = &settings.origin.host;
                    tracing::warn!(host, why, "spans cannot be exported and are dropped");
                }
            }
        }
        true
    }

    async fn send(&mut self, settings: &TracingSettings, body: &Bytes) -> Result<(), String> {
        let target = self.target(&settings.origin).map_err(|error| error.to_string())?;
        let mut pause = PAUSE;
        for _ in 1..SENDS_MAX {
            let Err(Failed { why, again }) = attempt(settings, &target, body).await else {
                return Ok(());
            };
            let wait = again.map(|again| again.max(pause)).filter(|wait| *wait <= PAUSE_MAX);
            let Some(wait) = wait else { return Err(why) };
            tokio::select! {
                () = sleep(wait) => {}
                // There is no time left to be patient.
                () = ended(&mut self.ending) => return Err(why),
            }
            pause *= 2;
        }
        attempt(settings, &target, body).await.map_err(|failed| failed.why)
    }

    /// With the connections of the last batch, if they lead to the same place.
    fn target(&mut self, origin: &Origin) -> Result<Arc<Target>, TargetError> {
        if let Some((known, target)) = &self.target
            && known == origin
        {
            return Ok(target.clone());
        }
        let target = Arc::new(Target::new(origin, &TlsConfig::default(), CONNECT_TIME_MAX)?);
        self.target = Some((origin.clone(), target.clone()));
        Ok(target)
    }
}

/// One request, and what its answer means.
async fn attempt(
    settings: &TracingSettings,
    target: &Arc<Target>,
    body: &Bytes,
) -> Result<(), Failed> {
    let report = Report {
        method: Method::POST,
        origin: &settings.origin,
        path: format!("{}/v1/traces", settings.base_path),
        headers: &settings.headers,
        content_type: "application/json",
        body: body.clone(),
        time_max: SEND_TIME_MAX,
    };
    let answer = report.send(target).await.map_err(|error| match error {
        NotSent::Illegal(what) => Failed { why: what.to_owned(), again: None },
        NotSent::Failed(why) => Failed { why, again: Some(Duration::ZERO) },
    })?;
    if answer.status.is_success() {
        return Ok(());
    }
    let why = format!("the collector answered {}", answer.status);
    // The four that the specification names; all others would be answered the same again.
    let again = matches!(
        answer.status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    Err(Failed { why, again: again.then(|| asked_pause(&answer.headers)) })
}

/// The wait that the collector asks for, in seconds; a date is as good as the longest one.
fn asked_pause(headers: &HeaderMap) -> Duration {
    let Some(field) = headers.get(RETRY_AFTER) else { return Duration::ZERO };
    let seconds = field.to_str().ok().and_then(|text| text.trim().parse().ok());
    seconds.map_or(Duration::MAX, Duration::from_secs)
}
