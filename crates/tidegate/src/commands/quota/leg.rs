//! One leg: a fresh simulator, Tidegate before it or not, the load, and what both ends say of it.

use super::metrics::{Metrics, Spread};
use super::offer::{BANDS, Offer};
use super::truth::{Look, Truth, Used};
use crate::cli::BenchLeg;
use crate::commands::ask::ask;
use crate::commands::stage::{Folder, Process, Stop, free_address};
use crate::commands::{Failed, proc};
use crate::config::Config;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_bench::{ProgressView, Report};
use tidegate_gateway::KeyHash;

/// How often both ends are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often memory is; a look takes the kernel up to some milliseconds.
const MEMORY_EVERY: Duration = Duration::from_secs(1);
/// Retries of the official SDKs.
const SDK_RETRIES: u32 = 2;
/// Who asks through Tidegate, in turn.
const TENANTS: [&str; 3] = ["one", "two", "three"];

impl BenchLeg {
    pub(super) const ALL: [BenchLeg; 3] = [BenchLeg::Direct, BenchLeg::Sdk, BenchLeg::Tidegate];

    pub(super) fn name(self) -> &'static str {
        match self {
            BenchLeg::Direct => "direct",
            BenchLeg::Sdk => "sdk",
            BenchLeg::Tidegate => "tidegate",
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            BenchLeg::Direct => "straight to the API, keys in turn, nothing is repeated",
            BenchLeg::Sdk => "straight to the API, keys in turn, two retries as the official SDKs make them",
            BenchLeg::Tidegate => "the clients of `sdk` through Tidegate, which has all the keys",
        }
    }

    fn retries(self) -> u32 {
        if self == BenchLeg::Direct { 0 } else { SDK_RETRIES }
    }
}

/// What all legs share.
pub(in crate::commands) struct Site {
    pub(in crate::commands) stop: Stop,
    pub(in crate::commands) folder: Folder,
    /// This binary.
    pub(in crate::commands) exe: PathBuf,
    /// A copy of it for Tidegate: pages of a file that runs thrice would count for a third.
    pub(in crate::commands) exe_of_gateway: PathBuf,
    /// The scenario as `simulate` is told it.
    pub(in crate::commands) scenario: String,
    /// Files a process may have open.
    pub(in crate::commands) files: u64,
    pub(in crate::commands) offer: Offer,
    /// Whether its progress is shown; legs that run at once would write over each other.
    pub(in crate::commands) shown: bool,
}

/// What Tidegate says and takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::commands) struct Gateway {
    /// Waits of admitted requests by band, in seconds; bands of which it says nothing are left out.
    pub(super) waits_s: BTreeMap<&'static str, Spread>,
    /// Refused requests by reason, if it tells.
    pub(super) shed: Option<BTreeMap<String, f64>>,
    /// The most memory it was seen to hold.
    pub(super) memory_peak: Option<u64>,
    pub(super) cpu: Option<Duration>,
}

/// What a leg found.
pub(in crate::commands) struct Found {
    pub(in crate::commands) leg: BenchLeg,
    pub(in crate::commands) report: Report,
    pub(in crate::commands) truth: Truth,
    pub(in crate::commands) used: Option<Used>,
    pub(in crate::commands) gateway: Option<Gateway>,
}

/// The processes of a leg.
struct Scene {
    url: String,
    keys: Vec<Secret>,
    truth: SocketAddr,
    gateway: Option<(Process, SocketAddr)>,
    _simulator: Process,
}

/// A key a tenant sends.
fn client_key(tenant: &str) -> String {
    format!("tg_bench_quota_{tenant}")
}

/// tidegate.toml: every organisation with all its keys, a client key for each tenant, and all else at
/// its default.
fn config(listen: SocketAddr, admin: SocketAddr, upstream: SocketAddr, offer: &Offer) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut out = format!("[listen]\naddress = \"{listen}\"\nadmin = \"{admin}\"\n");
    for one in &offer.organisations {
        let keys: Vec<String> = one.keys.iter().map(|key| format!("{{ value = {} }}", quoted(key))).collect();
        let (name, keys) = (quoted(&one.name), keys.join(", "));
        out += &format!("\n[[organisation]]\nname = {name}\nurl = \"http://{upstream}\"\nkeys = [{keys}]\n");
    }
    for tenant in TENANTS {
        let hash = KeyHash::of(client_key(tenant).as_bytes());
        out += &format!("\n[[client_key]]\ntenant = \"{tenant}\"\nhash = \"{hash}\"\n");
    }
    out
}

/// How often a scene is begun: somebody else may take a free port before it is used.
const STARTS: u32 = 3;

impl Scene {
    fn start(site: &Site, leg: BenchLeg) -> Result<Self, Failed> {
        let mut begun = Scene::start_once(site, leg);
        for _ in 1..STARTS {
            if begun.is_ok() || site.stop.is_set() {
                break;
            }
            begun = Scene::start_once(site, leg);
        }
        begun
    }

    fn start_once(site: &Site, leg: BenchLeg) -> Result<Self, Failed> {
        let (at, truth) = (free_address()?, free_address()?);
        let (at_text, truth_text, seed) = (at.to_string(), truth.to_string(), site.offer.seed.to_string());
        let args = ["simulate", "--scenario", &site.scenario, "--seed", &seed];
        let doors = ["--listen", &at_text, "--truth-listen", &truth_text];
        let mut simulator = Process::start("upstream", &site.exe, &[&args[..], &doors].concat(), &site.folder, true)?;
        simulator.until(&site.stop, || ask(truth, "/truth").is_ok())?;
        let (mut url, mut keys, mut gateway) = (format!("http://{at}"), site.offer.keys(), None);
        if leg == BenchLeg::Tidegate {
            let (listen, admin) = (free_address()?, free_address()?);
            let file = site.folder.write("tidegate.toml", &config(listen, admin, at, &site.offer))?;
            // What it would say of it goes where nobody reads it.
            let checked = Config::load(&file, &|_| None).and_then(|config| config.check());
            checked.map_err(|e| Failed(format!("tidegate does not take the scenario's organisations: {e}")))?;
            let args = ["serve", "--config", &file.display().to_string()];
            // What it says while it runs is not read; a log of its size would fill the folder.
            let mut process = Process::start("tidegate", &site.exe_of_gateway, &args, &site.folder, false)?;
            process.until(&site.stop, || ask(admin, "/readyz").is_ok())?;
            url = format!("http://{listen}");
            keys = TENANTS.map(|tenant| Secret::new(client_key(tenant))).to_vec();
            gateway = Some((process, admin));
        }
        Ok(Scene { url, keys, truth, gateway, _simulator: simulator })
    }

    fn truth(&self) -> Result<Truth, Failed> {
        let page = ask(self.truth, "/truth").map_err(|e| Failed(format!("the simulator's ground truth: {e}")))?;
        Truth::read(&page)
    }

    fn metrics(&self) -> Result<Option<String>, Failed> {
        let Some((_, admin)) = &self.gateway else { return Ok(None) };
        ask(*admin, "/metrics").map(Some).map_err(|e| Failed(format!("tidegate's admin port: {e}")))
    }

    fn look(&self, at: Duration) -> Result<Look, Failed> {
        // First the queue: what waited then is what the upstream's counts that follow were asked for.
        let waiting = self.metrics()?.and_then(|page| Metrics(&page).sum("tidegate_queue_waiting"));
        Ok(Look { at, truth: self.truth()?, waiting })
    }

    fn pids(&self) -> Vec<u32> {
        self.gateway.iter().map(|(process, _)| process.pid()).collect()
    }
}

/// Looks while the load runs.
struct Watch<'a> {
    scene: &'a Scene,
    stop: &'a Stop,
    look_due: Duration,
    memory_due: Duration,
    looks: Vec<Look>,
    memory_peak: Option<u64>,
    failed: Option<Failed>,
}

impl Watch<'_> {
    fn look(&mut self, at: Duration) -> ControlFlow<()> {
        if self.stop.is_set() {
            return ControlFlow::Break(());
        }
        if at >= self.memory_due && self.scene.gateway.is_some() {
            self.memory_due = at + MEMORY_EVERY;
            self.memory_peak = self.memory_peak.max(proc::memory(&self.scene.pids()));
        }
        if at < self.look_due {
            return ControlFlow::Continue(());
        }
        self.look_due = at + LOOK_EVERY;
        match self.scene.look(at) {
            Ok(look) => {
                self.looks.push(look);
                ControlFlow::Continue(())
            }
            Err(failed) => {
                self.failed = Some(failed);
                ControlFlow::Break(())
            }
        }
    }
}

/// What Tidegate's own page says of the whole run.
fn told(page: &str) -> Gateway {
    let metrics = Metrics(page);
    let wait = |band| metrics.spread("tidegate_queue_wait_seconds_bucket", "band", band);
    let waits_s: BTreeMap<_, _> = BANDS.iter().filter_map(|(band, _)| Some((*band, wait(band)?))).collect();
    // A family without a member may be left out; whoever tells waits would tell whom it sent away.
    let shed = metrics.by_label("tidegate_queue_shed_total", "reason");
    let shed = shed.or_else(|| (!waits_s.is_empty()).then(BTreeMap::new));
    Gateway { waits_s, shed, ..Gateway::default() }
}

/// Runs a leg.
pub(in crate::commands) fn run(site: &Site, leg: BenchLeg) -> Result<Found, Failed> {
    let scene = Scene::start(site, leg)?;
    let plan = site.offer.plan(&scene.url, scene.keys.clone(), leg.retries(), site.files);
    let mut watch = Watch {
        scene: &scene,
        stop: &site.stop,
        look_due: Duration::ZERO,
        memory_due: Duration::ZERO,
        looks: Vec::new(),
        memory_peak: None,
        failed: None,
    };
    let cpu_before = proc::cpu(&scene.pids());
    let mut view = site.shown.then(ProgressView::on_stderr);
    let report = tidegate_bench::run(&plan, |progress| {
        if let Some(view) = &mut view {
            view.show(progress);
        }
        watch.look(progress.elapsed)
    });
    if let Some(view) = view {
        view.finish();
    }
    let cpu = cpu_before.zip(proc::cpu(&scene.pids())).map(|(before, after)| after.saturating_sub(before));
    let Watch { looks, memory_peak, failed, .. } = watch;
    failed.map_or(Ok(()), Err)?;
    site.stop.pause(Duration::ZERO)?;
    let report = report.map_err(Failed::because)?;
    let gateway = scene.metrics()?.map(|page| Gateway { memory_peak, cpu, ..told(&page) });
    Ok(Found { leg, report, truth: scene.truth()?, used: Used::of(&looks, &site.offer), gateway })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use tidegate_simulator::Scenario;

    #[test]
    fn nobody_was_sent_away_where_waits_are_told_and_refusals_are_not() {
        assert_eq!(told("tidegate_queue_waiting 0\n"), Gateway::default());
        let waits = "tidegate_queue_wait_seconds_bucket{le=\"1.0\",band=\"normal\"} 7\ntidegate_queue_wait_seconds_bucket{le=\"+Inf\",band=\"normal\"} 7\n";
        let gateway = told(waits);
        assert_eq!((gateway.waits_s["normal"], gateway.shed), (Spread { p50: 0.5, p99: 0.5 }, Some(BTreeMap::new())));
        let shed = "tidegate_queue_shed_total{tenant=\"one\",band=\"normal\",reason=\"queue_full\"} 2\n";
        assert_eq!(told(&format!("{waits}{shed}")).shed, Some([("queue_full".to_owned(), 2.0)].into()));
    }

    #[test]
    fn tidegate_gets_every_organisation_with_all_its_keys() {
        let text = "[[organisation]]\nname = \"no\\\"rth\"\nkeys = [\"n1\", \"n2\"]\n[[organisation]]\nname = \"east\"\nkeys = [\"e1\"]\n";
        let span = Duration::from_secs(60);
        let offer = Offer::new(&Scenario::parse(text).unwrap(), 2.0, span, span, 1).unwrap();
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = config(at(4600), at(4601), at(4610), &offer);
        let config = Config::parse(Path::new("tidegate.toml"), &text, &|_| None).unwrap();
        assert!(config.check().is_ok(), "{text}");
        let organisations = &config.settings.organisations;
        let shown: Vec<_> = organisations.iter().map(|one| (one.name.as_str(), one.lanes.len())).collect();
        assert_eq!(shown, [("no\"rth", 2), ("east", 1)]);
        assert_eq!(config.settings.keys.len(), TENANTS.len());
    }
}
