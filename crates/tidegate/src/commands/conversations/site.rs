//! What a measurement stands on: a fresh simulator, a fresh Tidegate with a log of its own, both
//! processes of their own on loopback.

use crate::commands::ask::ask;
use crate::commands::stage::{Folder, Process, Stop, free_address};
use crate::commands::{Failed, proc};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The simulated API: no quota and no pauses, for neither is looked at. The cache holds what a
/// thousand conversations have marked.
const SCENARIO: &str = "[pace]\nhead = \"0 ms\"\nfirst = \"0 ms\"\nevent = \"0 ms\"\n[quota]\ntier = \"unlimited\"\n[cache]\nenabled = true\nentries_max = 262144\n";

/// What all measurements share.
pub(super) struct Site {
    pub(super) stop: Stop,
    pub(super) folder: Folder,
    pub(super) exe: PathBuf,
    /// A copy of it for Tidegate: pages of a file that runs thrice would count for a third.
    pub(super) exe_of_gateway: PathBuf,
    pub(super) seed: u64,
}

/// Simulator and Tidegate, ended with this value.
pub(super) struct Scene {
    pub(super) gateway: SocketAddr,
    admin: SocketAddr,
    tidegate: Process,
    _simulator: Process,
}

impl Scene {
    /// Starts both; `name` names the log, `conversations` are further settings of that table.
    pub(super) fn start(site: &Site, name: &str, conversations: &str) -> Result<Self, Failed> {
        let (upstream, truth, gateway, admin) = (free_address()?, free_address()?, free_address()?, free_address()?);
        let scenario = site.folder.write("scenario.toml", SCENARIO)?.display().to_string();
        let (at, truth_at, seed) = (upstream.to_string(), truth.to_string(), site.seed.to_string());
        let args = ["simulate", "--scenario", &scenario, "--seed", &seed, "--listen", &at, "--truth-listen", &truth_at];
        let mut simulator = Process::start("upstream", &site.exe, &args, &site.folder, true)?;
        simulator.until(&site.stop, || ask(truth, "/truth").is_ok())?;
        let log = site.folder.path().join(format!("{name}.db"));
        let log = toml::Value::from(log.display().to_string());
        let config = format!(
            "[listen]\naddress = \"{gateway}\"\nadmin = \"{admin}\"\n[conversations]\nfile = {log}\n{conversations}\n[[organisation]]\nname = \"bench\"\nurl = \"http://{upstream}\"\nkeys = [{{ value = \"sk-ant-bench-1\" }}]\n"
        );
        let file = site.folder.write("tidegate.toml", &config)?.display().to_string();
        let args = ["serve", "--config", &file, "--log-level", "warn"];
        let mut tidegate = Process::start("tidegate", &site.exe_of_gateway, &args, &site.folder, true)?;
        tidegate.until(&site.stop, || ask(admin, "/readyz").is_ok())?;
        Ok(Scene { gateway, admin, tidegate, _simulator: simulator })
    }

    /// Tidegate's page of metrics.
    pub(super) fn metrics(&self) -> Result<String, Failed> {
        ask(self.admin, "/metrics").map_err(|e| Failed(format!("tidegate's admin port: {e}")))
    }

    /// The value of one of them, labels included in its name; 0 if it is not there.
    pub(super) fn metric(&self, name: &str) -> Result<f64, Failed> {
        let page = self.metrics()?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.and_then(|value| value.parse().ok()).unwrap_or(0.0))
    }

    /// Bytes of memory Tidegate holds.
    pub(super) fn memory(&self) -> Option<u64> {
        proc::memory(&[self.tidegate.pid()])
    }
}
