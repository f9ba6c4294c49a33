//! forbear in the test's own process: real listeners on free ports, no file, no log.
#![allow(dead_code, reason = "each test uses the part that it needs")]

use std::net::SocketAddr;
use std::sync::Arc;

use forbear::admin::backend::Backend;
use forbear::config;
use forbear::serve::ListenerId;
use forbear::sidecar::{Control, Sidecar};
use forbear::telemetry::metrics::Metrics;
use forbear::telemetry::view::UpstreamView;
use forbear::telemetry::writer::LogWriter;

/// A running forbear; ends at once when dropped.
pub(crate) struct Forbear {
    sidecar: Sidecar,
}

/// The configuration with free loopback ports for the proxy and the admin listener.
pub(crate) fn with_free_ports(configuration: &str) -> String {
    let mut text = configuration.to_owned();
    for table in ["proxy", "admin"] {
        let listen = "listen = \"127.0.0.1:0\"\n";
        match text.find(&format!("[{table}]\n")) {
            Some(at) => text.insert_str(at + table.len() + 3, listen),
            None => text.push_str(&format!("\n[{table}]\n{listen}")),
        }
    }
    text
}

impl Forbear {
    /// Starts with this configuration, to which free loopback ports are added.
    pub(crate) fn start(configuration: &str) -> Self {
        let mut text = with_free_ports(configuration);
        if !text.contains("[state]") {
            text.push_str("\n[state]\npath = \":memory:\"\n");
        }
        let loaded = config::load_str(&text, "test.toml", &|_| None)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let metrics = Arc::new(Metrics::new());
        let log = LogWriter::start(std::io::sink(), metrics.log_lines_dropped.clone()).unwrap();
        Self { sidecar: Sidecar::start(loaded, None, metrics, log).unwrap() }
    }

    /// The first proxy listener.
    pub(crate) fn proxy(&self) -> SocketAddr {
        self.sidecar.proxy_address().unwrap()
    }

    /// The listener of an upstream's own.
    pub(crate) fn own(&self, upstream: &str) -> SocketAddr {
        let own = ListenerId::Upstream(upstream.into());
        self.sidecar.addresses().iter().find(|(id, _)| *id == own).unwrap().1
    }

    /// `http://127.0.0.1:port` and the path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.proxy())
    }

    /// The admin listener.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.sidecar.admin_address()
    }

    /// What can be asked and ordered.
    pub(crate) fn control(&self) -> &Arc<Control> {
        self.sidecar.control()
    }

    /// The upstream of that name as it is now.
    pub(crate) fn view(&self, upstream: &str) -> UpstreamView {
        let views = self.control().upstreams();
        views.into_iter().find(|view| view.name == upstream).unwrap()
    }

    /// The exposition.
    pub(crate) fn metrics(&self) -> String {
        self.control().scrape()
    }

    /// Ends in good order.
    pub(crate) async fn drain(self) {
        self.sidecar.drain(std::future::pending()).await;
    }

    /// Waits until `holds`, at most ten seconds; `what` says for what, should it not come.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("waited ten seconds for: {what}");
    }
}
