//! `tidegate serve`: the gateway, alone or with the simulator behind it.
//!
//! The control thread accepts, wakes the scheduler and serves the operators; each data-plane thread
//! serves its connections; the simulator, if there is one, has a thread of its own. SIGHUP reads the
//! configuration anew, SIGUSR2 starts a process that takes over. SIGTERM or SIGINT begins a drain; a second one ends the process at once.

use super::activation::{Passed, passed};
use super::greet::{Told, warn_of_admin};
use super::hand_over::{Elder, Heir, Inherited, spawn, start};
use super::reload::{Reloader, RenewTls};
use super::scratch::{conversation_log, usage_file};
use super::simulate::Running;
use super::{Failed, env, key, listen, notify};
use crate::cli::{LogFormat, Serve};
use crate::config::{API_URL, Config, KEY_BYTES as VAULT_KEY_BYTES};
use crate::log::LogThread;
use crate::process::Room;
use crate::request_log::RequestLog;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_base::Secret;
use tidegate_gateway::{Gateway, Organisation, Said, UsageFile, Wanted, serve_admin};
use tidegate_store::Store;
use tidegate_transport::{Clock, Listen, TaskKind, Tasks, TcpDial, TcpListen, TlsFiles, TlsListen};
use tidegate_upstream::{Lane, Scheme};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing_subscriber::filter::LevelFilter;

const ADMIN: TaskKind =
    TaskKind { name: "admin door", on_cancel: "ends with the process", on_error: "accepts again after 50 ms" };

const HEIRS: TaskKind = TaskKind {
    name: "hand-over",
    on_cancel: "nobody can take over from this process any more",
    on_error: "says so and waits for the next",
};

/// Flags over file over environment over defaults.
pub(super) fn configure(flags: &Serve) -> Result<Config, Failed> {
    let mut config = match &flags.config {
        // With the simulator behind it, the file's organisations and their keys are not used.
        Some(path) if flags.simulate => Config::load_for_simulator(path, &env).map_err(Failed::because)?,
        Some(path) => Config::load(path, &env).map_err(Failed::because)?,
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

/// Waits for SIGTERM or SIGINT; a second one from then on ends the process at once.
pub(super) async fn asked_to_stop() -> Result<(), Failed> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failed::because)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failed::because)?;
    let once = async |terminate: &mut tokio::signal::unix::Signal, interrupt: &mut tokio::signal::unix::Signal| {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    once(&mut terminate, &mut interrupt).await;
    let impatient = std::thread::Builder::new().name("impatience".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
    impatient
        .spawn(move || {
            runtime.block_on(async {
                once(&mut terminate, &mut interrupt).await;
                std::process::exit(130);
            })
        })
        .map_err(Failed::because)?;
    Ok(())
}

/// What a configuration is made of, now and when it is read anew.
pub(super) struct Served<'s> {
    pub(super) flags: &'s Serve,
    simulator: Option<&'s Running>,
    room: Room,
    passing: PassingKeys,
}

/// Reads the configuration and everything it names, and checks the whole.
pub(super) fn prepare(served: &Served<'_>) -> Result<Config, Failed> {
    let mut config = configure(served.flags)?;
    // A permit without a file to go with it would only make the accept fail.
    config.settings.limits.connections = config.settings.limits.connections.min(served.room.connections());
    if let Some(running) = served.simulator {
        use_simulator(&mut config, running)?;
    }
    config.check().map_err(Failed::because)?;
    let passing = config.redact.needs_passing_keys().then_some(served.passing);
    config.settings.redaction = config.redact.redaction(passing).map_err(Failed::because)?;
    Ok(config)
}

pub(super) fn run(flags: &Serve, room: Room) -> Result<(), Failed> {
    let simulator = if flags.simulate { Some(start_simulator(flags)?) } else { None };
    let served = Served { flags, simulator: simulator.as_ref(), room, passing: passing_keys()? };
    let config = prepare(&served)?;
    // Where this program is, before another one lies there.
    let program = std::env::current_exe().map_err(Failed::because)?;
    let mut heir = flags.upgrade.as_deref().map(|from| Heir::meet(elders_address(from, config.listen)?)).transpose()?;
    // Before anything listens: a log that cannot be opened is found out at once.
    let log = conversation_log(&config, flags.simulate, heir.as_mut().and_then(|heir| heir.log.take()))?;
    let usage = usage_file(&config)?;
    let (_log, records) = start_log(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
    let ended = runtime.block_on(serve(config, served, records, (log, usage), heir, &program));
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
    config: Config,
    served: Served<'_>,
    records: RequestLog,
    (log, usage): (Option<Store>, UsageFile),
    heir: Option<Heir>,
    program: &Path,
) -> Result<(), Failed> {
    let (simulator, room) = (served.simulator, served.room);
    let clock = Clock::real();
    let dial = TcpDial::new(clock, config.dial, &config.roots).map_err(Failed::because)?;
    let tls = config.server_tls().map_err(Failed::because)?;
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
    if let Some(taking) = taking {
        gateway.follows(start(taking, clock, &tasks).await?);
    }
    gateway.serve_on_threads(door, threads).map_err(Failed::because)?;
    let admin_door = tasks.spawn(&ADMIN, serve_admin(gateway.clone(), Box::new(admin)));
    let (told, mut heirs) = mpsc::channel(1);
    let mut elder_waits = None;
    if let Some(to_share) = to_share {
        match Elder::new(gateway_at, hand_over, gateway.clone(), clock, to_share) {
            Ok(elder) => elder_waits = Some(tasks.spawn(&HEIRS, elder.run(told))),
            Err(error) => {
                tracing::warn!(target: "tidegate", %error, "no process will be able to take over from this one (--upgrade)");
            }
        }
    }
    greeting.greet(&format!("{scheme}://{gateway_at}"), admin_at, simulator, room);
    tracing::info!(target: "tidegate", %gateway_at, %admin_at, threads, upstreams = greeting.upstreams.join(", "), redact = greeting.redact, after = elder, "ready");
    warn_of_admin(admin_at);
    notify::ready();

    let reloader = Reloader::new(served, gateway.clone(), renew_tls, clock);
    let end = tokio::select! {
        stop = asked_to_stop() => stop.map(|()| End::Stop)?,
        Some(heir) = heirs.recv() => End::HandedOver(heir),
        failed = attend(reloader, &gateway, program, gateway_at) => return Err(failed),
    };
    if let End::HandedOver(heir) = end {
        admin_door.abort();
        notify::replaced_by(heir);
        let within = gateway.hand_over_time();
        tracing::info!(target: "tidegate", heir, streams = gateway.live().len(), within_s = within.as_secs(), "handed over; what is under way goes on to its end");
        tokio::select! {
            over = gateway.hand_over(within) => {
                tracing::info!(target: "tidegate", cut = over.cut, "ended");
                return Ok(());
            }
            stop = asked_to_stop() => stop?,
        }
    } else {
        notify::stopping();
        // Its sockets are the ones that clients come to.
        elder_waits.iter().for_each(JoinHandle::abort);
    }
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
    if let Some(Inherited { gateway, admin, hand_over }) = inherited {
        let (door, admin) = (on(gateway)?, on(admin)?);
        let is_other = |told: SocketAddr, is: SocketAddr| told.port() != 0 && told != is;
        if is_other(config.listen, door.local()) || is_other(config.admin, admin.local()) {
            tracing::warn!(
                target: "tidegate", gateway = %door.local(), admin = %admin.local(),
                "a process that takes over listens where the one before did; other addresses need a stop and a start"
            );
        }
        return Ok(Doors { door, admin, hand_over: Some(hand_over) });
    }
    let Passed { gateway, admin } = passed()?;
    let door = gateway.map_or_else(|| listen(config.listen, "--listen"), on)?;
    let admin = admin.map_or_else(|| listen(config.admin, "--admin-listen"), on)?;
    Ok(Doors { door, admin, hand_over: None })
}

/// Does what signals, files and operators ask for while it serves; ends only with an error.
async fn attend(mut reloader: Reloader<'_>, gateway: &Gateway, program: &Path, at: SocketAddr) -> Failed {
    let simulates = reloader.simulates();
    let mut wishes = gateway.wishes();
    let signals = signal(SignalKind::hangup()).and_then(|hangup| Ok((hangup, signal(SignalKind::user_defined2())?)));
    let (mut hangup, mut upgrade) = match signals {
        Ok(signals) => signals,
        Err(e) => return Failed::because(e),
    };
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
