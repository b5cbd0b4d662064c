//! Who is compared, and starting one of them: a process of its own in front of a fresh upstream,
//! up when it answers `GET /`.
//!
//! Every measurement has processes of its own, so that nobody inherits another run's memory or warm
//! pools, and what a process held at most is what this measurement took.

use super::configs::{self, CLIENT_KEY, Wiring};
use super::figures::{DIRECT, HAPROXY, NGINX, TIDEGATE};
use super::links::{Certificate, Links};
use crate::commands::stage::{Folder, LOOK_EVERY, Process, START_MAX, Stop, free_address};
use crate::commands::{Failed, proc};
use std::cell::OnceCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A gateway of the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) url: String,
    pub(super) pid: Option<u32>,
    pub(super) key: Option<String>,
}

/// Somebody to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody: the upstream itself.
    Direct,
    Nginx(PathBuf),
    Haproxy(PathBuf),
    Tidegate,
    Own(Own),
}

/// Somebody with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) kind: Kind,
}

impl Peer {
    pub(super) fn new(name: &str, kind: Kind) -> Self {
        Peer { name: name.to_owned(), kind }
    }

    /// `NAME=URL[,pid=N][,key=KEY]`.
    pub(super) fn parse(text: &str) -> Result<Self, Failed> {
        let wrong =
            |why: &str| Failed(format!("--peer `{text}`: {why}; write NAME=URL, NAME=URL,pid=N or NAME=URL,key=KEY"));
        let (name, rest) = text.split_once('=').ok_or_else(|| wrong("it has no name"))?;
        let taken = [DIRECT, NGINX, HAPROXY, TIDEGATE].contains(&name);
        if taken || name.is_empty() || name.len() > 32 || name.contains(['|', ',']) || name.contains(char::is_control) {
            return Err(wrong("the name is taken, empty, longer than 32 bytes, or has a comma or bar"));
        }
        let mut parts = rest.split(',');
        let url = parts.next().unwrap_or_default().to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(wrong("its URL does not begin with http:// or https://"));
        }
        let mut own = Own { url, pid: None, key: None };
        for part in parts {
            match part.split_once('=') {
                Some(("pid", pid)) => own.pid = Some(pid.parse().map_err(|_| wrong("its pid is no number"))?),
                Some(("key", key)) if !key.is_empty() => own.key = Some(key.to_owned()),
                _ => return Err(wrong("only pid and key may follow the URL")),
            }
        }
        Ok(Peer { name: name.to_owned(), kind: Kind::Own(own) })
    }
}

/// What all measurements share.
pub(super) struct Site {
    pub(super) stop: Stop,
    pub(super) folder: Folder,
    /// This binary.
    pub(super) exe: PathBuf,
    /// A copy of it for Tidegate: pages of a file that runs thrice would count for a third.
    pub(super) exe_of_peer: PathBuf,
    pub(super) upstream_listen: Option<SocketAddr>,
    pub(super) log_level: String,
    pub(super) quick: bool,
    pub(super) cores: usize,
    pub(super) certificate: OnceCell<Certificate>,
}

/// A peer that runs, and the upstream behind it.
pub(super) struct Trial {
    pub(super) url: String,
    pub(super) key: String,
    /// The CA file to believe, if the peer is spoken to over TLS.
    pub(super) ca: Option<PathBuf>,
    /// Processes of the peer: none of the upstream alone and of a user's without a pid.
    pub(super) pids: Vec<u32>,
    /// Its first process's start to its first answer.
    pub(super) ready_after: Option<Duration>,
    _peer: Option<Process>,
    _upstream: Process,
}

/// Why a peer is not measured.
pub(super) enum NotMeasured {
    /// It cannot do what the row asks for; the rest goes on.
    Cannot(String),
    /// Nothing goes on.
    Failed(Failed),
}

impl From<Failed> for NotMeasured {
    fn from(failed: Failed) -> Self {
        NotMeasured::Failed(failed)
    }
}

impl Site {
    /// Starts an upstream that answers by `scenario`, and the peer in front of it.
    pub(super) fn start(&self, peer: &Peer, links: Links, scenario: &str) -> Result<Trial, NotMeasured> {
        let certificate = if links == Links::Tls { Some(self.certificate()?) } else { None };
        self.check_abilities(peer, links)?;
        let upstream_at = self.upstream_listen.map_or_else(free_address, Ok)?;
        let upstream = self.start_upstream(upstream_at, scenario, certificate)?;
        let ca = certificate.map(|c| c.chain.clone());
        let scheme = if ca.is_some() { "https" } else { "http" };
        let url = |at: SocketAddr| format!("{scheme}://{at}");
        let mut trial = Trial {
            url: url(upstream_at),
            key: CLIENT_KEY.to_owned(),
            ca: ca.clone(),
            pids: Vec::new(),
            ready_after: None,
            _peer: None,
            _upstream: upstream,
        };
        if let Kind::Own(own) = &peer.kind {
            trial.url.clone_from(&own.url);
            trial.key = own.key.clone().unwrap_or(trial.key);
            trial.pids = own.pid.map_or_else(Vec::new, proc::family);
        } else if peer.kind != Kind::Direct {
            let listen = free_address()?;
            let wiring = Wiring { listen, upstream: upstream_at, links, certificate, cores: self.cores };
            let mut process = self.start_peer(peer, &wiring)?;
            let ready_after = self.ready(&mut process, listen, links);
            trial.ready_after = Some(ready_after.map_err(|e| self.with_reason(peer, e))?);
            trial.pids = self.family(peer, &process)?;
            trial.url = url(listen);
            trial._peer = Some(process);
        }
        Ok(trial)
    }

    fn certificate(&self) -> Result<&Certificate, Failed> {
        match self.certificate.get() {
            Some(made) => Ok(made),
            None => Ok(self.certificate.get_or_init({
                let made = Certificate::make(&self.folder)?;
                || made
            })),
        }
    }

    fn start_upstream(&self, at: SocketAddr, scenario: &str, tls: Option<&Certificate>) -> Result<Process, Failed> {
        let text = format!("about = \"The upstream of a comparison.\"\n[bare]\n{scenario}");
        let file = self.folder.write("upstream.toml", &text)?;
        let (at_text, truth, file) = (at.to_string(), free_address()?.to_string(), file.display().to_string());
        let mut args = vec!["simulate", "--scenario", &file, "--listen", &at_text, "--truth-listen", &truth];
        let paths = tls.map(|c| (c.chain.display().to_string(), c.key.display().to_string()));
        if let Some((chain, key)) = &paths {
            args.extend(["--tls-cert", chain, "--tls-key", key]);
        }
        let mut process = Process::start("upstream", &self.exe, &args, &self.folder, true)?;
        self.ready(&mut process, at, if tls.is_some() { Links::Tls } else { Links::Plain })?;
        Ok(process)
    }

    fn start_peer(&self, peer: &Peer, wiring: &Wiring<'_>) -> Result<Process, Failed> {
        let folder = &self.folder;
        match &peer.kind {
            Kind::Nginx(program) => {
                let file = folder.write("nginx.conf", &configs::nginx(wiring, folder.path()))?.display().to_string();
                let log = folder.path().join("nginx.log").display().to_string();
                Process::start("nginx", program, &["-e", &log, "-c", &file], folder, true)
            }
            Kind::Haproxy(program) => {
                let file = folder.write("haproxy.cfg", &configs::haproxy(wiring))?.display().to_string();
                Process::start("haproxy", program, &["-db", "-f", &file], folder, true)
            }
            _ => {
                let text = configs::tidegate(wiring, free_address()?);
                let file = folder.write("tidegate.toml", &text)?.display().to_string();
                let args = ["serve", "--config", &file, "--log-level", &self.log_level];
                // Its log goes where nobody reads it, as a service's does; to a file it would fill the disk.
                Process::start("tidegate", &self.exe_of_peer, &args, folder, false)
            }
        }
    }

    /// Whether this build and this peer can do what the links ask for, found out by asking them.
    fn check_abilities(&self, peer: &Peer, links: Links) -> Result<(), NotMeasured> {
        if links == Links::Plain {
            return Ok(());
        }
        let cannot = |why: &str| Err(NotMeasured::Cannot(why.to_owned()));
        if matches!(peer.kind, Kind::Own(_)) {
            return cannot("a peer of yours is measured in cleartext HTTP/1.1 only");
        }
        // nginx asks the upstream over HTTP/1.1 in any case. The simulator learnt HTTP/2 with TLS.
        let asks_more = links == Links::Tls || !matches!(peer.kind, Kind::Nginx(_));
        if asks_more && !self.says(&["simulate", "--help"], "--tls-cert")? {
            return cannot("not supported by this build: `simulate --tls-cert`, HTTP/2 of the simulator");
        }
        if peer.kind == Kind::Tidegate {
            let here = SocketAddr::from(([127, 0, 0, 1], 1));
            let certificate = if links == Links::Tls { Some(self.certificate()?) } else { None };
            let wiring = Wiring { listen: here, upstream: here, links, certificate, cores: self.cores };
            let file = self.folder.write("ability.toml", &configs::tidegate(&wiring, here))?.display().to_string();
            if !self.says(&["check-config", &file], "good")? {
                return cannot("not supported by this build: its configuration for HTTP/2 upstream or TLS");
            }
        }
        Ok(())
    }

    /// Tidegate's own words are not kept while it runs; if it does not start, its configuration is
    /// looked at again.
    fn with_reason(&self, peer: &Peer, failed: Failed) -> Failed {
        let mut command = Command::new(&self.exe);
        let command = command.arg("check-config").arg(self.folder.path().join("tidegate.toml")).stdin(Stdio::null());
        match command.output() {
            Ok(output) if peer.kind == Kind::Tidegate && !output.status.success() => {
                Failed(format!("{failed}; {}", String::from_utf8_lossy(&output.stderr).trim()))
            }
            _ => failed,
        }
    }

    fn says(&self, args: &[&str], word: &str) -> Result<bool, Failed> {
        let mut command = Command::new(&self.exe);
        let output = command.args(args).stdin(Stdio::null()).output().map_err(Failed::because)?;
        Ok(String::from_utf8_lossy(&output.stdout).contains(word))
    }

    /// The peer's processes. nginx takes connections before its workers are there.
    fn family(&self, peer: &Peer, process: &Process) -> Result<Vec<u32>, Failed> {
        let processes = if matches!(peer.kind, Kind::Nginx(_)) { 1 + self.cores } else { 1 };
        loop {
            let family = proc::family(process.pid());
            if family.len() >= processes {
                return Ok(family);
            }
            if process.age() > START_MAX {
                return Err(Failed(format!("{} has no workers after {} s", peer.name, START_MAX.as_secs())));
            }
            self.stop.pause(LOOK_EVERY)?;
        }
    }

    /// Waits for the first answer; how long after the process's start it came.
    fn ready(&self, process: &mut Process, at: SocketAddr, links: Links) -> Result<Duration, Failed> {
        process.until(&self.stop, || answers(at, links))
    }
}

/// Whether `GET /` is answered with 200; over TLS, whether there is somebody.
fn answers(at: SocketAddr, links: Links) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(1))?;
        if links == Links::Tls {
            return Ok(true);
        }
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(
            format!("GET / HTTP/1.1\r\nhost: {at}\r\nx-api-key: {CLIENT_KEY}\r\nconnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/1.1 200")
    };
    // Nobody there yet is the answer no.
    ask().unwrap_or(false)
}

/// Bytes of a file.
pub(super) fn size(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|file| file.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_of_the_users_is_read_or_refused() {
        let own = |url: &str, pid, key: Option<&str>| {
            Kind::Own(Own { url: url.to_owned(), pid, key: key.map(str::to_owned) })
        };
        let kind = |text: &str| Peer::parse(text).ok().map(|peer| (peer.name, peer.kind));
        let mine = |kind| Some(("mine".to_owned(), kind));
        assert_eq!(kind("mine=http://127.0.0.1:1"), mine(own("http://127.0.0.1:1", None, None)));
        assert_eq!(kind("mine=http://a:1/v1,pid=12"), mine(own("http://a:1/v1", Some(12), None)));
        assert_eq!(kind("mine=http://a:1,key=sk=x,pid=1"), mine(own("http://a:1", Some(1), Some("sk=x"))));
        for bad in
            ["http://a", "=http://a", "nginx=http://a", "a=ftp://b", "a=http://b,pid=x", "a=http://b,x", "a|b=http://c"]
        {
            assert!(kind(bad).is_none(), "{bad}");
        }
    }
}
