//! One whole forbear: every listener, the control plane beside them, and its end.
//!
//! Workers serve exchanges; one more runtime, the caller's, answers the admin listener, watches
//! files and drives the end. Everything is bound before anything is started, so a mistake in an
//! address is an error and not half a sidecar. The command line, the demo and the tests all start
//! forbear through here.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;

mod control;

mod idle;

mod memory;

mod push;

mod report;

#[cfg(feature = "otlp")]
mod traces;

pub use self::control::{Control, WATCH_INTERVAL};
pub use self::idle::Idle;

use crate::admin;
use crate::admin::auth::Access;
use crate::admin::backend::Backend;
use crate::config::Loaded;
use crate::config::settings::Settings;
use crate::gateway::clock::Clock;
use crate::gateway::{BuildError, Common, Gateway, Live};
use crate::proxy::Proxy;
use crate::serve::worker::{BindError, Bound, Running};
use crate::serve::{ListenerId, Timeouts};
use crate::store::Store;
use crate::telemetry::access::AccessLogger;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::scrape;
use crate::telemetry::writer::LogWriter;

/// What still waits is refused when this part of the drain time is left (5 s of the usual 25 s), so
/// that what is in flight gets the rest.
const REFUSE_AT_LAST: u32 = 5;
/// After a last answer its connection may linger so long.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Writing the last second's stories takes milliseconds, unless the disk hangs.
const STORE_TIME_MAX: Duration = Duration::from_secs(1);

/// A running forbear.
pub struct Sidecar {
    control: Arc<Control>,
    running: Running,
    admin: SocketAddr,
    metrics: Option<SocketAddr>,
    /// Admin and metrics listeners, and the export of traces.
    tasks: JoinSet<()>,
    store: Store,
    /// True once those should end.
    ending: watch::Sender<bool>,
}

/// Why forbear does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An upstream's settings cannot be put to work.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A proxy listener cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An admin listener cannot be bound.
    #[error("{setting} = \"{address}\" cannot be bound: {why}. Choose another address or port.")]
    BindAdmin {
        /// `admin.listen` or `metrics.listen`.
        setting: &'static str,
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        why: io::Error,
    },
    /// The system refused a thread.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] io::Error),
}

impl Sidecar {
    /// Binds everything, then starts everything. `config` is read again by a reload. Must be
    /// called within a runtime: the control plane runs there.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; nothing is left running.
    pub fn start(
        loaded: Loaded,
        config: Option<PathBuf>,
        metrics: Arc<Metrics>,
        log: LogWriter,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(loaded.settings.clone());
        let clock = Clock::start();
        let store = Store::open(&settings.state, clock, metrics.store.clone())?;
        let (ledger, salt) = (store.ledger().clone(), store.salt());
        let common = Common::with_ledger(clock, metrics, &settings, ledger, salt);
        let access = AccessLogger::new(settings.log, log.clone());
        let gateway = Gateway::build(settings.clone(), access, &common, None)?;
        gateway.enforce();
        memory::restore(&gateway, store.saved());
        let bound = Bound::bind(&settings)?;
        let admin = bind("admin.listen", settings.admin.listen)?;
        let read_only =
            settings.metrics_listen.map(|address| bind("metrics.listen", address)).transpose()?;

        let live: Live = Arc::new(ArcSwap::from_pointee(gateway));
        store.watch(memory::snapshot(live.clone()));
        let (ending, _) = watch::channel(false);
        let mut tasks = JoinSet::new();
        #[cfg(feature = "otlp")]
        tasks.spawn(traces::run(live.clone(), ending.subscribe()));
        let running = bound.start(&Proxy::new(live.clone()))?;
        let is_loopback = settings.admin.listen.ip().is_loopback();
        let guard = Arc::new(Access::new(settings.admin.token.clone(), is_loopback));
        let control = Arc::new(Control::new(
            live,
            config,
            log,
            guard.clone(),
            running.load().clone(),
            running.addresses().to_vec(),
            loaded,
        ));
        let looking = Arc::downgrade(&control);
        common.look_by(Box::new(move |upstream| {
            if let Some(control) = looking.upgrade() {
                control.renew_secret(upstream);
            }
        }));
        let admin_address = admin.local_addr()?;
        let metrics_address = read_only.as_ref().map(TcpListener::local_addr).transpose()?;
        let backend: Arc<dyn Backend> = control.clone();
        serve_admin(&mut tasks, admin, admin::router(backend.clone(), guard), &ending);
        if let Some(listener) = read_only {
            serve_admin(&mut tasks, listener, admin::metrics_router(backend), &ending);
        }
        let sidecar = Self {
            control,
            running,
            admin: admin_address,
            metrics: metrics_address,
            tasks,
            store,
            ending,
        };
        Ok(sidecar)
    }

    /// Everything that can be asked and ordered.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Proxy listeners with the addresses really bound.
    pub fn addresses(&self) -> &[(ListenerId, SocketAddr)] {
        self.running.addresses()
    }

    /// The first proxy listener.
    pub fn proxy_address(&self) -> Option<SocketAddr> {
        self.addresses().first().map(|(_, address)| *address)
    }

    /// The admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The read-only listener, if there is one.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// New limits of connections, for those that begin from now on.
    pub fn set_timeouts(&self, settings: &Settings) {
        self.running.set_timeouts(Timeouts::from(&settings.proxy));
    }

    /// Ends in good order: readiness goes first and serving goes on, since the application beside
    /// may still be draining through it; once nothing has been in flight for `drain_idle`, or the
    /// drain time is nearly over, newcomers are refused, and what is in flight gets the rest.
    /// `now` ends the waiting, not the order.
    pub async fn drain(mut self, now: impl Future<Output = ()>) {
        let settings = self.control.gateway().settings.clone();
        let common = self.control.gateway().common.clone();
        self.control.begin_draining();
        let load = self.running.load().clone();
        let clock = &common.clock;
        let end = clock.now() + settings.proxy.drain_timeout;
        let last = settings.proxy.drain_timeout / REFUSE_AT_LAST;
        let refuse_at = clock.now() + settings.proxy.drain_timeout.saturating_sub(last);
        let orderly = async {
            let idle = async {
                loop {
                    load.without_exchanges().await;
                    let quiet_from = self.control.exchanges_begun();
                    clock.sleep_until(clock.now() + settings.proxy.drain_idle).await;
                    if load.exchanges() == 0 && self.control.exchanges_begun() == quiet_from {
                        break;
                    }
                }
            };
            tokio::select! {
                () = idle => {}
                () = clock.sleep_until(refuse_at) => {}
            }
            common.drain();
            self.running.drain();
            tokio::select! {
                () = load.without_connections() => {}
                () = clock.sleep_until(end) => {}
            }
        };
        tokio::select! {
            () = orderly => {}
            () = now => {}
        }
        self.running.stop_accepting();
        self.running.abort();
        let last_words = clock.now() + LAST_WORDS;
        tokio::select! {
            () = self.running.ended() => {}
            () = clock.sleep_until(last_words) => {}
        }
        // Nobody listening any more is fine.
        let _ = self.ending.send(true);
        let settled = async { while self.tasks.join_next().await.is_some() {} };
        let pushed = async {
            if let Some(push) = &settings.metrics_push {
                let gateway = self.control.gateway();
                push::run(push, scrape::counted(self.control.metrics(&gateway))).await;
            }
        };
        // Side by side: each of the last words has a second, and there may be no more than two.
        tokio::join!(settled, pushed);
        if !self.store.close(STORE_TIME_MAX) {
            tracing::warn!(
                "the state file takes too long; what was told last may be missing in it"
            );
        }
    }
}

fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|why| StartError::BindAdmin { setting, address, why })
}

fn serve_admin(
    tasks: &mut JoinSet<()>,
    listener: TcpListener,
    router: axum::Router,
    ending: &watch::Sender<bool>,
) {
    let mut ending = ending.subscribe();
    tasks.spawn(async move {
        let end = async move {
            // A sender that is gone means the same.
            let _ = ending.wait_for(|ending| *ending).await;
        };
        if let Err(error) = admin::server::serve(listener, router, end).await {
            tracing::error!(%error, "the admin listener stopped");
        }
    });
}
