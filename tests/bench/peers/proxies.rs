//! The proxies: finding them, and starting one with its template of a configuration.
//!
//! The templates beside this file are to be equivalent: all take the first segment off the path, keep
//! connections on both sides, verify the origin's certificate, repeat what failed, and log no success.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{Cores, Guarded};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Between two tries to get a first answer.
const TRY_EVERY: Duration = Duration::from_micros(200);

/// Longest wait for it.
const START_MAX: Duration = Duration::from_secs(20);

/// Starts before giving up: a free port may be taken by somebody else before the proxy binds it.
const STARTS_MAX: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Forbear,
    Nginx,
    Haproxy,
    Envoy,
    /// This program, as a proxy that is hyper and nothing else.
    Bare,
}

/// A program that can be measured.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    /// What stands before the program, such as `valgrind`.
    wrapper: Vec<String>,
}

impl Proxy {
    fn new(name: &str, kind: Kind, program: PathBuf) -> Self {
        Self { name: name.to_owned(), kind, program, wrapper: Vec::new() }
    }

    /// forbear as an argument of another program.
    pub(crate) fn forbear_under(wrapper: Vec<String>, program: &Path) -> Self {
        Self { wrapper, ..Self::new("forbear", Kind::Forbear, program.to_owned()) }
    }

    /// forbear, or its builds that were named as `NAME=PATH`, and every peer on the PATH; of these only
    /// those whose names were given.
    pub(crate) fn all(builds: &[String], only: &[String]) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for build in builds {
            let (name, path) = build.split_once('=').unwrap_or(("forbear", build));
            all.push(Self::new(name, Kind::Forbear, fs::canonicalize(path)?));
        }
        if builds.is_empty() {
            all.push(Self::new("forbear", Kind::Forbear, env!("CARGO_BIN_EXE_forbear").into()));
        }
        let peers = [("nginx", Kind::Nginx), ("haproxy", Kind::Haproxy), ("envoy", Kind::Envoy)];
        for (name, kind) in peers {
            match on_path(name) {
                Some(program) => all.push(Self::new(name, kind, program)),
                None => eprintln!("{name} is not on the PATH and is left out"),
            }
        }
        let is_wanted = |proxy: &Self| match proxy.kind {
            // A named build was asked for by its name already.
            Kind::Forbear => !builds.is_empty() || only.iter().any(|name| name == "forbear"),
            Kind::Nginx | Kind::Haproxy | Kind::Envoy | Kind::Bare => only.contains(&proxy.name),
        };
        all.push(Self::new("bare", Kind::Bare, std::env::current_exe()?));
        all.retain(|proxy| only.is_empty() || is_wanted(proxy));
        for name in only {
            let is_known = ["forbear", "bare"].contains(&&**name)
                || peers.iter().any(|(peer, _)| peer == name);
            if !is_known {
                return Err(format!(
                    "--proxies: {name} is none of forbear, nginx, haproxy, envoy, bare"
                )
                .into());
            }
        }
        if all.is_empty() { Err("none of these proxies was found".into()) } else { Ok(all) }
    }

    /// What it says about its version, on one line.
    pub(crate) fn version(&self) -> String {
        let flag = match self.kind {
            Kind::Forbear | Kind::Envoy => "--version",
            Kind::Nginx | Kind::Haproxy => "-v",
            Kind::Bare => return "hyper and nothing else".to_owned(),
        };
        let Ok(output) = Command::new(&self.program).arg(flag).output() else {
            return String::new();
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        line.trim().to_owned()
    }

    fn template(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Forbear => ("forbear.toml", include_str!("forbear.toml")),
            Kind::Nginx => ("nginx.conf", include_str!("nginx.conf")),
            Kind::Haproxy => ("haproxy.cfg", include_str!("haproxy.cfg")),
            Kind::Bare => {
                ("bare.args", "bare --port {port} --plain {plain} --tls {tls} --ca ca.pem")
            }
            Kind::Envoy => ("envoy.yaml", include_str!("envoy.yaml")),
        }
    }

    fn command(&self, file: &Path, workers: usize) -> Command {
        let mut words = self.wrapper.iter().map(OsStr::new).chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        match self.kind {
            Kind::Forbear => command.args(["run", "-c"]).arg(file),
            Kind::Nginx => command.args(["-e", "stderr", "-c"]).arg(file),
            Kind::Haproxy => command.args(["-db", "-f"]).arg(file),
            Kind::Bare => {
                let arguments = fs::read_to_string(file).unwrap_or_default();
                command.args(arguments.split_whitespace())
            }
            Kind::Envoy => command
                .args(["--log-level", "error", "--disable-hot-restart", "--concurrency"])
                .arg(workers.to_string())
                .arg("-c")
                .arg(file),
        };
        command
    }

    /// Starts it in a folder of its own and waits for its first answer.
    pub(crate) fn start(
        &self,
        origin: &Origin<'_>,
        workers: usize,
        cores: Cores,
    ) -> Result<Running> {
        let mut last = None;
        for _ in 0..STARTS_MAX {
            match self.try_start(origin, workers, cores) {
                Ok(running) => return Ok(running),
                Err(error) => last = Some(error),
            }
        }
        Err(format!("{}: {}", self.name, last.ok_or("never tried")?).into())
    }

    fn try_start(&self, origin: &Origin<'_>, workers: usize, cores: Cores) -> Result<Running> {
        let folder = tempfile::tempdir()?;
        // nginx's workers are somebody else when it is started by root.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        fs::copy(origin.folder.join("ca.pem"), folder.path().join("ca.pem"))?;
        let ports = free_ports()?;
        let (name, template) = self.template();
        let file = folder.path().join(name);
        let path = folder.path().to_str().ok_or("a folder that is no text")?;
        let filled = template
            .replace("{port}", &ports[0].to_string())
            .replace("{admin}", &ports[1].to_string())
            .replace("{plain}", &origin.plain.to_string())
            .replace("{tls}", &origin.tls.to_string())
            .replace("{workers}", &workers.to_string())
            .replace("{folder}", path);
        fs::write(&file, filled)?;
        let said = folder.path().join("stderr");
        let mut command = self.command(&file, workers);
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&said)?);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]));
        let spawned = Instant::now();
        let mut process = Guarded::spawn(&mut command, cores)?;
        while !answers(address) {
            if process.has_ended() || spawned.elapsed() > START_MAX {
                let why = fs::read_to_string(&said).unwrap_or_default();
                return Err(format!("it did not start: {}", why.trim()).into());
            }
            std::thread::sleep(TRY_EVERY);
        }
        Ok(Running { started_in: spawned.elapsed(), process, address, folder })
    }
}

/// Where the origin is.
pub(crate) struct Origin<'a> {
    pub(crate) plain: u16,
    pub(crate) tls: u16,
    /// With `ca.pem`.
    pub(crate) folder: &'a Path,
}

/// A proxy that serves; ended when dropped.
pub(crate) struct Running {
    pub(crate) process: Guarded,
    pub(crate) address: SocketAddr,
    /// From its start to its first 200.
    pub(crate) started_in: Duration,
    folder: TempDir,
}

impl Running {
    /// Where its configuration lies.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The program itself: what stands on the PATH may be a script that finds it, which would be measured by
/// the time that it takes to start.
pub(crate) fn behind_scripts(process: &Guarded, named: &Path) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", process.id())).unwrap_or_else(|_| named.to_owned())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Two ports that were free a moment ago.
pub(crate) fn free_ports() -> Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

/// Whether a request gets a 200.
pub(crate) fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /plain/1k HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 13];
        stream.read_exact(&mut start)?;
        let is_fine = &start == b"HTTP/1.1 200 ";
        drop(stream.read_to_end(&mut Vec::new()));
        Ok(is_fine)
    };
    ask().unwrap_or(false)
}
