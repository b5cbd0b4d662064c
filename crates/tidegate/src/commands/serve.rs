//! `tidegate serve`: the gateway, alone or with the simulator behind it.
//!
//! The control thread accepts, wakes the scheduler and serves the operators; each data-plane thread
//! serves its connections; the simulator, if there is one, has a thread of its own. SIGHUP reads the
//! configuration anew, SIGUSR2 starts a process that takes over. SIGTERM or SIGINT begins a drain; a second one ends the process at once.

use super::activation::{Passed, passed};
use super::greet::{Told, warn_of_admin};
use super::hand_over::{Elder, Heir, Inherited, spawn, start, tell_failed};
use super::reload::{Once, Reloader, RenewTls};
use super::scratch::{conversation_log, usage_file};
use super::signals::Signals;
use super::simulate::Running;
use super::{Failed, env, key, listen, notify};
use crate::cli::{LogFormat, Serve};
use crate::config::{API_URL, Config, KEY_BYTES as VAULT_KEY_BYTES, Sources};
use crate::log::LogThread;
use crate::process::Room;
use crate::request_log::RequestLog;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_base::Secret;
use tidegate_gateway::{Gateway, Organisation, Said, UsageFile, Wanted, serve_admin};
use tidegate_store::Store;
use tidegate_transport::{Clock, Listen, ServerTls, TaskKind, Tasks, TcpDial, TcpListen, TlsFiles, TlsListen};
use tidegate_upstream::{Lane, Scheme};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tracing_subscriber::filter::LevelFilter;

const ADMIN: TaskKind =
    TaskKind { name: "admin door", on_cancel: "ends with the process", on_error: "accepts again after 50 ms" };

const HEIRS: TaskKind = TaskKind {
    name: "hand-over",
    on_cancel: "nobody can take over from this process any more",
    on_error: "says so and waits for the next",
};

/// Flags over file over environment over defaults.
pub(super) fn configure(flags: &Serve, sources: &dyn Sources) -> Result<Config, Failed> {
    let mut config = match &flags.config {
        // With the simulator behind it, the file's organisations and their keys are not used.
        Some(path) => Config::load_from(path, sources, flags.simulate).map_err(Failed::because)?,
        None => Config::default(),
    };
    config.listen = flags.listen.unwrap_or(config.listen);
    config.tls = tls_files(flags.tls_cert.as_ref(), flags.tls_key.as_ref()).or(config.tls);
    config.admin = flags.admin_listen.unwrap_or(config.admin);
    // What stands on the command line is meant from where it was written.
    let here = |file: &PathBuf| std::path::absolute(file).unwrap_or_else(|_| file.clone());
    config.conversations = flags.conversations.as_ref().map(here).or(config.conversations);
    if let Some(policy) = flags.redact {
        config.redact.use_policy(policy.into());
    }
    config.threads = flags.threads.filter(|n| *n > 0).or(config.threads);
    config.log_json = flags.log_format.map_or(config.log_json, |f| f == LogFormat::Json);
    config.log_level = flags.log_level.clone().unwrap_or(config.log_level);
    let from_flags = flags.upstream.is_some() || flags.upstream_key.is_some();
    let key = flags.upstream_key.clone().or_else(|| env("ANTHROPIC_API_KEY"));
    if from_flags || (config.settings.organisations.is_empty() && key.is_some()) {
        let key = key
            .ok_or_else(|| Failed("--upstream needs a key: set ANTHROPIC_API_KEY or give --upstream-key".to_owned()))?;
        config.use_upstream(flags.upstream.as_deref().unwrap_or(API_URL), &key, &env).map_err(Failed::because)?;
    }
    config.settings.pass_through.speaks_tls = config.tls.is_some();
    config.settings.seed = u64::from_le_bytes(key::random()?);
    Ok(config)
}

/// The two flags of TLS, which come together.
pub(super) fn tls_files(certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Option<TlsFiles> {
    Some(TlsFiles { certificate: certificate?.clone(), key: key?.clone() })
}

/// The log, and who writes requests' records into it.
fn start_log(config: &Config) -> Result<(LogThread, RequestLog), Failed> {
    let level: LevelFilter = config
        .log_level
        .parse()
        .map_err(|_| Failed(format!("log level `{}`: write error, warn, info or debug", config.log_level)))?;
    let thread = LogThread::start(std::io::stderr()).map_err(Failed::because)?;
    let log = tracing_subscriber::fmt().with_writer(thread.lines()).with_max_level(level);
    let started = if config.log_json {
        log.json().flatten_event(true).try_init()
    } else {
        log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
    };
    started.map_err(Failed::because)?;
    let wants = |least: LevelFilter| level >= least;
    let records = RequestLog {
        lines: thread.lines(),
        json: config.log_json,
        info: wants(LevelFilter::INFO),
        warn: wants(LevelFilter::WARN),
    };
    Ok((thread, records))
}

/// What a configuration is made of, now and when it is read anew.
pub(super) struct Served<'s> {
    pub(super) flags: &'s Serve,
    simulator: Option<&'s Running>,
    room: Room,
    passing: PassingKeys,
}

/// A configuration that can be served under.
pub(super) struct Prepared {
    pub(super) config: Config,
    /// TLS towards clients, if it is spoken.
    pub(super) tls: Option<ServerTls>,
}

/// Reads the configuration and everything it names from `sources`, and checks the whole.
pub(super) fn prepare(served: &Served<'_>, sources: &dyn Sources) -> Result<Prepared, Failed> {
    let mut config = configure(served.flags, sources)?;
    // A permit without a file to go with it would only make the accept fail.
    config.settings.limits.connections = config.settings.limits.connections.min(served.room.connections());
    if let Some(running) = served.simulator {
        use_simulator(&mut config, running)?;
    }
    config.check().map_err(|e| match &config.path {
        Some(path) => Failed(format!("{}: {e}", path.display())),
        None => Failed::because(e),
    })?;
    let passing = config.redact.needs_passing_keys().then_some(served.passing);
    config.settings.redaction = config.redact.redaction(passing).map_err(Failed::because)?;
    let tls = config.server_tls_from(sources).map_err(Failed::because)?;
    Ok(Prepared { config, tls })
}

pub(super) fn run(flags: &Serve, room: Room) -> Result<(), Failed> {
    let ended = run_to_end(flags, room);
    if let (Err(failed), Some(Ok(elder))) = (&ended, flags.upgrade.as_deref().map(str::parse)) {
        tell_failed(elder, &failed.to_string());
    }
    ended
}

fn run_to_end(flags: &Serve, room: Room) -> Result<(), Failed> {
    let simulator = if flags.simulate { Some(start_simulator(flags)?) } else { None };
    let served = Served { flags, simulator: simulator.as_ref(), room, passing: passing_keys()? };
    let read = Once::default();
    let prepared = prepare(&served, &read)?;
    let config = &prepared.config;
    // Where this program is, before another one lies there.
    let program = std::env::current_exe().map_err(Failed::because)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
    // Not before the configuration is read: that may wait for a file, and is to be interrupted.
    let signals = runtime.block_on(async { Signals::new() })?;
    let mut heir = flags.upgrade.as_deref().map(|from| Heir::meet(elders_address(from, config.listen)?)).transpose()?;
    // Before anything listens: a log that cannot be opened is found out at once.
    let log = conversation_log(config, flags.simulate, heir.as_mut().and_then(|heir| heir.log.take()))?;
    let usage = usage_file(config)?;
    let (_log, records) = start_log(config)?;
    let ended = runtime.block_on(serve((prepared, read), served, records, (log, usage), heir, &program, signals));
    if let Some(mut simulator) = simulator {
        simulator.stop();
    }
    ended
}

/// Where the process listens that is taken over from.
fn elders_address(said: &str, listen: SocketAddr) -> Result<SocketAddr, Failed> {
    if said.is_empty() {
        return Ok(listen);
    }
    said.parse().map_err(|_| {
        Failed(format!("--upgrade={said}: write the address that the process listens on, such as 127.0.0.1:4600"))
    })
}

fn start_simulator(flags: &Serve) -> Result<Running, Failed> {
    let at = |flag: Option<SocketAddr>, port| flag.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port)));
    let (api, truth) = (at(flags.simulate_listen, 4610), at(flags.truth_listen, 4611));
    let name = flags.scenario.as_deref().unwrap_or("calm");
    Running::start(name, flags.seed.unwrap_or(1), api, truth, ["--simulate-listen", "--truth-listen"], None)
}

/// Keys of redaction that are in no configuration: needed only where nothing outlives the process, and
/// gone with it.
type PassingKeys = [[u8; VAULT_KEY_BYTES]; 2];

fn passing_keys() -> Result<PassingKeys, Failed> {
    Ok([key::random()?, key::random()?])
}

/// Makes the simulator's organisations the upstream, each with all its keys. Where the scenario lists
/// none any key is good, and one is enough.
pub(super) fn use_simulator(config: &mut Config, simulator: &Running) -> Result<(), Failed> {
    let url = format!("http://{}", simulator.api);
    if simulator.organisations.is_empty() {
        return config.use_upstream(&url, "sk-ant-simulated", &|_| None).map_err(Failed::because);
    }
    let organisation = |(name, keys): &(String, Vec<String>)| {
        let lane = |(n, key): (usize, &String)| {
            Lane::new(format!("{name}/{}", n + 1), &url, Scheme::ApiKey, Secret::new(key)).map(Arc::new)
        };
        let lanes = keys.iter().enumerate().map(lane).collect::<Result<_, _>>().map_err(Failed::because)?;
        Ok(Organisation::new(name.clone(), lanes))
    };
    config.settings.organisations = simulator.organisations.iter().map(organisation).collect::<Result<_, Failed>>()?;
    Ok(())
}

async fn serve(
    (Prepared { config, tls }, read): (Prepared, Once),
    served: Served<'_>,
    records: RequestLog,
    (log, usage): (Option<Store>, UsageFile),
    heir: Option<Heir>,
    program: &Path,
    signals: Signals,
) -> Result<(), Failed> {
    let Signals { mut stop, hangup, upgrade } = signals;
    let (simulator, room) = (served.simulator, served.room);
    let clock = Clock::real();
    let dial = TcpDial::new(clock, config.dial, &config.roots).map_err(Failed::because)?;
    let elder = heir.as_ref().map(|heir| heir.elder);
    let (taking, inherited) = heir.map(Heir::into_parts).unzip();
    let Doors { door, admin, hand_over } = doors(&config, inherited)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (gateway_at, admin_at) = (door.local(), admin.local());
    let cores = std::thread::available_parallelism().map_or(1, |n| u8::try_from(n.get()).unwrap_or(u8::MAX));
    let threads = config.threads.unwrap_or(cores);
    let greeting = Told::of(&config, &usage, simulator.is_some());
    let gateway = Gateway::keeping(config.settings, clock, Arc::new(dial), Arc::new(records), log, usage);
    let gateway = gateway.await.map_err(Failed::because)?;
    // What the simulated API knows lives in this process and would be gone: there is nothing to take over.
    let to_share = match simulator {
        Some(_) => None,
        None => Some([door.share().map_err(Failed::because)?, admin.share().map_err(Failed::because)?]),
    };
    let (door, renew_tls): (Box<dyn Listen>, Option<RenewTls>) = match tls {
        Some(tls) => {
            let door = TlsListen::new(Box::new(door), tls);
            let renew = Box::new(door.renewer());
            (Box::new(door), Some(renew))
        }
        None => (Box::new(door), None),
    };
    let tasks = Tasks::new();
    // All that can fail has been done: from here on this process serves.
    let started = async {
        match taking {
            Some(taking) => start(taking, clock).await.map(Some),
            None => Ok(None),
        }
    };
    let following = tokio::select! {
        biased;
        started = started => started?,
        () = stop.asked() => {
            tracing::info!(target: "tidegate", "stopped before it took over");
            return Ok(());
        }
    };
    let following = following.map(|(claims, following)| {
        gateway.follows(claims);
        following
    });
    gateway.serve_on_threads(door, threads).map_err(Failed::because)?;
    if let Some(following) = following {
        following.serves(&tasks).await;
    }
    tasks.spawn(&ADMIN, serve_admin(gateway.clone(), Box::new(admin)));
    let (told, mut heirs) = mpsc::channel(1);
    if let Some(to_share) = to_share {
        match Elder::new(gateway_at, hand_over, gateway.clone(), clock, to_share) {
            Ok(elder) => drop(tasks.spawn(&HEIRS, elder.run(told))),
            Err(error) => {
                tracing::warn!(target: "tidegate", %error, "no process will be able to take over from this one (--upgrade)");
            }
        }
    }
    greeting.greet(&format!("{scheme}://{gateway_at}"), admin_at, simulator, room);
    tracing::info!(target: "tidegate", %gateway_at, %admin_at, threads, upstreams = greeting.upstreams.join(", "), redact = greeting.redact, after = elder, "ready");
    warn_of_admin(admin_at);
    notify::ready();

    let reloader = Reloader::new(served, gateway.clone(), renew_tls, clock, read);
    let mut attending = std::pin::pin!(attend(reloader, &gateway, program, gateway_at, (hangup, upgrade)));
    let end = tokio::select! {
        () = stop.asked() => End::Stop,
        Some(heir) = heirs.recv() => End::HandedOver(heir),
        never = &mut attending => match never {},
    };
    if let End::HandedOver(heir) = end {
        let within = gateway.hand_over_time();
        tracing::info!(target: "tidegate", heir, streams = gateway.live().len(), within_s = within.as_secs(), "handed over; what is under way goes on to its end");
        tokio::select! {
            over = gateway.hand_over(within) => {
                tracing::info!(target: "tidegate", cut = over.cut, "ended");
                return Ok(());
            }
            () = stop.asked() => {}
            // A key that is revoked is so for those too who are still connected here.
            never = &mut attending => match never {},
        }
    } else {
        notify::stopping();
    }
    stop.next_ends_the_process()?;
    let drain = gateway.drain_time();
    tracing::info!(target: "tidegate", streams = gateway.live().len(), drain_s = drain.as_secs(), "draining; signal again to stop at once");
    let drained = gateway.drain().await;
    tracing::info!(target: "tidegate", cut = drained.cut, "drained");
    Ok(())
}

/// Why this process stops accepting.
enum End {
    Stop,
    HandedOver(u32),
}

/// Where everybody comes to.
struct Doors {
    door: TcpListen,
    admin: TcpListen,
    hand_over: Option<UnixListener>,
}

/// The sockets of the process before, or of a service manager, or new ones.
fn doors(config: &Config, inherited: Option<Inherited>) -> Result<Doors, Failed> {
    let on = |socket| TcpListen::on(socket).map_err(Failed::because);
    // What is as it is without a word in the file or a flag is nobody's wish.
    let usual = [Config::default().listen, Config::default().admin];
    let is_other = |told: SocketAddr, is: SocketAddr| told.port() != 0 && !usual.contains(&told) && told != is;
    let (passed, hand_over) = match inherited {
        // The one before this may have no doors any more: one that had taken over from it has ended.
        Some(Inherited { doors: Some([gateway, admin]), hand_over }) => {
            (Passed { gateway: Some(gateway), admin: Some(admin) }, Some(hand_over))
        }
        Some(Inherited { doors: None, hand_over }) => (Passed::default(), Some(hand_over)),
        None => (passed()?, None),
    };
    let by = if hand_over.is_some() { "the process before this one" } else { "the service manager" };
    let door = |socket: Option<TcpListener>, told: SocketAddr, flag: &str| {
        let Some(socket) = socket else { return listen(told, flag) };
        let door = on(socket)?;
        if is_other(told, door.local()) {
            let (at, by) = (door.local(), by);
            tracing::warn!(target: "tidegate", %at, %told, by, "{flag} or its setting says otherwise than the socket that was passed on: that is the one that is used; another address needs a stop and a start");
        }
        Ok(door)
    };
    let (gateway, admin) =
        (door(passed.gateway, config.listen, "--listen")?, door(passed.admin, config.admin, "--admin-listen")?);
    Ok(Doors { door: gateway, admin, hand_over })
}

/// Does what signals, files and operators ask for while it serves; never ends by itself.
async fn attend(
    mut reloader: Reloader<'_>,
    gateway: &Gateway,
    program: &Path,
    at: SocketAddr,
    (mut hangup, mut upgrade): (Signal, Signal),
) -> Infallible {
    let simulates = reloader.simulates();
    let mut wishes = gateway.wishes();
    let start_heir = || match can_hand_over(simulates).and_then(|()| spawn(program, at).map_err(|e| e.to_string())) {
        Ok(pid) => {
            tracing::info!(target: "tidegate", pid, program = %program.display(), "a process was started that is to take over");
            Said::Done(serde_json::json!({"started": pid}))
        }
        Err(why) => {
            tracing::error!(target: "tidegate", why, "no process could be started that takes over");
            Said::Refused("upgrade_refused", why)
        }
    };
    loop {
        tokio::select! {
            _ = hangup.recv() => drop(reloader.reload("SIGHUP")),
            _ = upgrade.recv() => drop(start_heir()),
            () = reloader.changed() => drop(reloader.reload("a file changed")),
            Some(wish) = wishes.recv() => {
                let said = match wish.wanted {
                    Wanted::Reload => reloader.reload("an operator asked"),
                    Wanted::Upgrade => start_heir(),
                };
                // Who asked may have left.
                drop(wish.answer.send(said));
            }
        }
    }
}

/// Why no process can take over from this one, if none can.
fn can_hand_over(simulates: bool) -> Result<(), String> {
    match simulates {
        true => Err("with --simulate the simulated API lives in this process, and would be gone with it".to_owned()),
        false => Ok(()),
    }
}
