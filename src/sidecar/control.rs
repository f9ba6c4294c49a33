//! What can be asked of a running forbear and ordered of it: the admin API's other side.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};

use crate::admin::auth::Access;
use crate::admin::backend::{
    Asking, Backend, ControlError, ForceBreaker, ForcedState, Keeping, Reload,
};
use crate::config::{self, Loaded};
use crate::gateway::upstream::Upstream;
use crate::gateway::{Gateway, Live};
use crate::policy::breaker::Force;
use crate::serve::ListenerId;
use crate::serve::shutdown::Load;
use crate::store::read::{self, Answer, Question};
use crate::telemetry::access::AccessLogger;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names;
use crate::telemetry::scrape;
use crate::telemetry::view::{
    EventKind, EventView, KeyView, Moment, PreflightView, ProcessView, Readiness, ReloadReport,
    UpstreamView,
};
use crate::telemetry::writer::LogWriter;

/// The handle of a running forbear.
pub struct Control {
    live: Live,
    config: Option<PathBuf>,
    log: LogWriter,
    access: Arc<Access>,
    pub(super) load: Arc<Load>,
    listeners: Vec<(ListenerId, SocketAddr)>,
    draining: AtomicBool,
    quit: Notify,
    /// One reload at a time; what is in force, as it was read.
    in_force: Mutex<Arc<Loaded>>,
    /// Set by a reload, for whoever owns the listeners.
    reloaded: Notify,
}

impl Control {
    pub(super) fn new(
        live: Live,
        config: Option<PathBuf>,
        log: LogWriter,
        access: Arc<Access>,
        load: Arc<Load>,
        listeners: Vec<(ListenerId, SocketAddr)>,
        in_force: Loaded,
    ) -> Self {
        let content_hash = in_force.content_hash;
        let control = Self {
            live,
            config,
            log,
            access,
            load,
            listeners,
            draining: AtomicBool::new(false),
            quit: Notify::new(),
            in_force: Mutex::new(Arc::new(in_force)),
            reloaded: Notify::new(),
        };
        let common = &control.gateway().common;
        common.metrics.config_applied(&printed(content_hash), common.clock.wall());
        control
    }

    /// The configuration in force.
    pub fn gateway(&self) -> Arc<Gateway> {
        self.live.load_full()
    }

    /// Until somebody asks for the end through the admin API.
    pub async fn asked_to_quit(&self) {
        self.quit.notified().await;
    }

    /// The configuration in force, as it was read.
    pub fn loaded(&self) -> Arc<Loaded> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Until a reload changed something.
    pub async fn reloaded(&self) {
        self.reloaded.notified().await;
    }

    /// Exchanges begun since the start, to see whether there was one in between.
    pub fn exchanges_begun(&self) -> u64 {
        self.load.exchanges_begun()
    }

    /// What is counted, up to now.
    pub(super) fn metrics<'g>(&self, gateway: &'g Gateway) -> &'g Metrics {
        let metrics = &gateway.common.metrics;
        let counted = metrics.accept_errors.get();
        metrics.accept_errors.inc_by(self.load.accept_errors().saturating_sub(counted));
        metrics
    }

    pub(super) fn begin_draining(&self) {
        self.draining.store(true, Ordering::Release);
        tracing::info!("draining: serving goes on until nothing is in flight or the time is over");
        self.tell(EventKind::Draining, "asked to end".to_owned());
    }

    /// Reads the configuration again and puts it in force: all or nothing.
    ///
    /// # Errors
    ///
    /// One sentence per problem; the old configuration goes on.
    pub fn reload_now(&self) -> Result<ReloadReport, Vec<String>> {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let gateway = self.gateway();
        let refused = |problems: Vec<String>| {
            gateway.common.metrics.config_refused();
            for problem in &problems {
                tracing::error!(problem, "configuration refused; the old one goes on");
            }
            self.tell(EventKind::Config, format!("refused: {}", problems.join("; ")));
            problems
        };
        let Some(path) = &self.config else {
            return Err(refused(vec!["this forbear was started without a file".to_owned()]));
        };
        let loaded = config::load(path, &config::process_environment)
            .map_err(|problems| refused(problems.0.iter().map(ToString::to_string).collect()))?;
        let hash = printed(loaded.content_hash);
        let applied = |changes| {
            let common = &gateway.common;
            common.metrics.config_applied(&hash, common.clock.wall());
            ReloadReport { changes, hash: hash.clone() }
        };
        if loaded.content_hash == in_force.content_hash {
            tracing::info!("configuration read again; it is the one in force");
            return Ok(applied(Vec::new()));
        }
        let changes = config::reload::diff(&gateway.settings, &loaded.settings);
        if !changes.restart_needed.is_empty() {
            let why = changes.restart_needed.join("; ");
            return Err(refused(vec![format!("{why}: restart forbear for that")]));
        }
        let settings = Arc::new(loaded.settings.clone());
        let access = AccessLogger::new(settings.log, self.log.clone());
        let next = Gateway::build(settings.clone(), access, &gateway.common, Some(&gateway))
            .map_err(|error| refused(vec![error.to_string()]))?;
        // First the rules, then the routes to them: nobody is judged by less than both.
        next.enforce();
        gateway.common.ledger.configure(&settings.state);
        self.live.store(Arc::new(next));
        self.access.set_token(settings.admin.token.clone());
        gateway.common.metrics.retain(&settings);
        for warning in &loaded.warnings {
            tracing::warn!(warning = warning.to_string(), "configuration");
        }
        tracing::info!(changes = changes.lines.join("; "), "configuration applied");
        self.tell(EventKind::Config, format!("applied: {}", changes.lines.join("; ")));
        let report = applied(changes.lines);
        *in_force = Arc::new(loaded);
        self.reloaded.notify_one();
        Ok(report)
    }

    /// Reads the secret of an upstream again, which refused it. If it is another one by now, it is
    /// put in force as by any reload, with everything else that has changed.
    pub(super) fn renew_secret(&self, upstream: &str) {
        let gateway = self.gateway();
        let Some(upstream) = gateway.upstream(upstream) else { return };
        let Some(credential) = &upstream.config.credential else { return };
        if config::read_again(credential).is_some_and(|now| now != credential.value) {
            tracing::info!(upstream = &*upstream.config.name, "refused, and there is a new secret");
            // Problems have been logged, each with its place and its fix.
            let _ = self.reload_now();
        }
    }

    fn tell(&self, kind: EventKind, detail: String) {
        let common = &self.gateway().common;
        let time = Moment(common.clock.wall());
        common.tell(EventView { time, kind, upstream: None, scope: None, detail });
    }

    fn find(&self, name: &str) -> Result<(Arc<Gateway>, Arc<Upstream>), ControlError> {
        let gateway = self.gateway();
        match gateway.upstream(name).cloned() {
            Some(upstream) => Ok((gateway, upstream)),
            None => Err(ControlError::UnknownUpstream {
                name: name.to_owned(),
                known: gateway.settings.upstreams.iter().map(|u| u.name.to_string()).collect(),
            }),
        }
    }
}

impl Backend for Control {
    fn upstreams(&self) -> Vec<UpstreamView> {
        self.gateway().upstream_views()
    }

    fn keys(&self) -> Vec<KeyView> {
        self.gateway().key_views()
    }

    fn config(&self) -> serde_json::Value {
        let in_force = self.loaded();
        serde_json::json!({
            "file": self.config,
            "hash": printed(in_force.content_hash),
            "effective": in_force.effective,
        })
    }

    fn ready(&self) -> Readiness {
        let is_draining = self.draining.load(Ordering::Acquire);
        Readiness {
            ready: !is_draining,
            reason: is_draining.then(|| "draining: forbear was asked to end".to_owned()),
        }
    }

    fn scrape(&self) -> String {
        let gateway = self.gateway();
        let metrics = self.metrics(&gateway);
        let listeners = self.listeners.iter().enumerate().map(|(at, (id, _))| {
            let name = match id {
                ListenerId::Main(0) => "proxy".to_owned(),
                ListenerId::Main(n) => format!("proxy-{n}"),
                ListenerId::Upstream(name) => name.to_string(),
            };
            (name, u32::try_from(self.load.connections_of(at)).unwrap_or(0))
        });
        let process = ProcessView {
            draining: self.draining.load(Ordering::Acquire),
            listeners: listeners.collect(),
        };
        scrape::text(metrics, &gateway.upstream_views(), &gateway.key_views(), &process)
    }

    fn force_breaker(
        &self,
        upstream: &str,
        request: ForceBreaker,
    ) -> Result<UpstreamView, ControlError> {
        let (gateway, found) = self.find(upstream)?;
        let to = match request.state {
            ForcedState::Open => Force::Open,
            ForcedState::Closed => Force::Closed,
            ForcedState::Auto => Force::Auto,
        };
        let until = gateway.common.clock.now() + request.for_;
        let route = request.route.as_deref();
        let was_found =
            found.state.with(|policy, cx| policy.force(cx, route, to, until, &request.reason));
        if !was_found {
            let routes = found.config.policy.routes.iter();
            return Err(ControlError::UnknownPart {
                upstream: upstream.to_owned(),
                what: format!("route {} with a breaker of its own", route.unwrap_or_default()),
                known: routes
                    .filter(|route| route.breaker.is_some())
                    .map(|route| route.name.to_string())
                    .collect(),
            });
        }
        let state = match request.state {
            ForcedState::Open => "open",
            ForcedState::Closed => "closed",
            ForcedState::Auto => "auto",
        };
        let (reason, seconds) = (&request.reason, request.for_.as_secs());
        gateway.common.tell(EventView {
            time: Moment(gateway.common.clock.wall()),
            kind: EventKind::Breaker,
            upstream: Some(upstream.to_owned()),
            scope: route.map(names::breaker_of_route).or(Some(names::BREAKER_UPSTREAM.to_owned())),
            detail: format!("set to {state} by hand for {seconds} s: {reason}"),
        });
        tracing::warn!(upstream, state, route, reason, seconds, "breaker set by hand");
        Ok(found.view(gateway.common.clock.anchor()))
    }

    fn clear_cooldown(
        &self,
        upstream: &str,
        scope: Option<&str>,
    ) -> Result<UpstreamView, ControlError> {
        let (gateway, found) = self.find(upstream)?;
        let cleared = found.state.with(|policy, cx| policy.clear_cooldowns(cx, scope));
        if let (0, Some(scope)) = (cleared, scope) {
            let view = found.view(gateway.common.clock.anchor());
            return Err(ControlError::UnknownPart {
                upstream: upstream.to_owned(),
                what: format!("cooldown or lock of {scope}"),
                known: view
                    .cooldowns
                    .into_iter()
                    .map(|cooldown| cooldown.scope)
                    .chain(view.locks.into_iter().map(|lock| lock.credential))
                    .collect(),
            });
        }
        tracing::warn!(upstream, cleared, "cooldowns cleared by hand");
        gateway.common.tell(EventView {
            time: Moment(gateway.common.clock.wall()),
            kind: EventKind::Cooldown,
            upstream: Some(upstream.to_owned()),
            scope: scope.map(str::to_owned),
            detail: format!("{cleared} cleared by hand"),
        });
        Ok(found.view(gateway.common.clock.anchor()))
    }

    fn preflight(
        &self,
        upstream: &str,
        route: &str,
        requests: u32,
    ) -> Result<PreflightView, ControlError> {
        let (gateway, found) = self.find(upstream)?;
        let routes = || found.config.policy.routes.iter().map(|route| &route.name);
        let told = routes()
            .any(|known| **known == *route)
            .then(|| found.state.with(|policy, cx| policy.preflight(cx, route, requests)));
        let Some(told) = told.flatten() else {
            return Err(ControlError::UnknownPart {
                upstream: upstream.to_owned(),
                what: format!("route {route}"),
                known: routes().map(|route| route.to_string()).collect(),
            });
        };
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let anchor = gateway.common.clock.anchor();
        Ok(PreflightView {
            upstream: upstream.to_owned(),
            route: route.to_owned(),
            requests,
            takes_ms: ms(told.takes),
            done_at: Moment(anchor.wall(anchor.mono + told.takes)),
            starts_in_ms: ms(told.starts_in),
            bound_by: told.bound_by.name().to_owned(),
            quota: told.bound_by.quota().map(str::to_owned),
            scope: told.scope,
            queued: u32::try_from(told.queued).unwrap_or(u32::MAX),
            in_flight_max: told.in_flight_max,
            per_request_ms: told.per_request.map(ms),
        })
    }

    fn ask_ledger(&self, question: Question) -> Asking<'_> {
        Box::pin(async move {
            let gateway = self.gateway();
            let answer = gateway.common.ledger.ask(question.clone()).await;
            match answer.map_err(|error| ControlError::LedgerFailed { why: error.to_string() })? {
                Answer::Found(found) => Ok(found),
                Answer::Unknown { oldest } => {
                    let id = match &question {
                        Question::One(id) => id.as_str(),
                        Question::Last(_) => "",
                    };
                    let why = read::unknown(id, oldest, Some(&gateway.settings.state));
                    Err(ControlError::UnknownExchange { why })
                }
                Answer::Failed(why) => Err(ControlError::LedgerFailed { why }),
            }
        })
    }

    fn kept(&self) -> Keeping<'_> {
        Box::pin(async { self.gateway().common.ledger.kept().await })
    }

    fn reload(&self) -> Reload<'_> {
        Box::pin(async {
            self.reload_now().map_err(|problems| ControlError::ReloadRefused { problems })
        })
    }

    fn quit(&self) {
        self.quit.notify_one();
    }

    fn subscribe(&self) -> broadcast::Receiver<EventView> {
        self.gateway().common.subscribe()
    }
}

fn printed(hash: u64) -> String {
    format!("{hash:016x}")
}

/// How long a change of a file may go unnoticed.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);
