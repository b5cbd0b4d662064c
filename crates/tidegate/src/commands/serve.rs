//! `tidegate serve`: the gateway, alone or with the simulator behind it.
//!
//! The control thread accepts, wakes the scheduler and serves the operators; each data-plane thread
//! serves its connections; the simulator, if there is one, has a thread of its own. SIGTERM or
//! SIGINT begins a drain; a second one ends the process at once.

use super::scratch::{ConversationLog, usage_file};
use super::simulate::Running;
use super::{Failed, env, key, listen, say};
use crate::cli::{LogFormat, Serve};
use crate::config::{API_URL, Config};
use crate::log::LogThread;
use crate::process::Room;
use crate::request_log::RequestLog;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_base::Secret;
use tidegate_gateway::redaction::Redaction;
use tidegate_gateway::{Gateway, Organisation, UsageFile, serve_admin};
use tidegate_transport::{Clock, Listen, TaskKind, Tasks, TcpDial, TlsFiles, TlsListen};
use tidegate_upstream::{Lane, Scheme};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

const ADMIN: TaskKind =
    TaskKind { name: "admin door", on_cancel: "ends with the process", on_error: "accepts again after 50 ms" };

/// Flags over file over environment over defaults.
pub(super) fn configure(flags: &Serve) -> Result<Config, Failed> {
    let mut config = match &flags.config {
        // With the simulator behind it, the file's organisations and their keys are not used.
        Some(path) => Config::load(path, &|name| env(name).or_else(|| flags.simulate.then(|| "unused".to_owned())))
            .map_err(Failed::because)?,
        None => Config::default(),
    };
    config.listen = flags.listen.unwrap_or(config.listen);
    config.tls = tls_files(flags.tls_cert.as_ref(), flags.tls_key.as_ref()).or(config.tls);
    config.admin = flags.admin_listen.unwrap_or(config.admin);
    config.conversations = flags.conversations.clone().or(config.conversations);
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

pub(super) fn run(flags: &Serve, room: Room) -> Result<(), Failed> {
    let mut config = configure(flags)?;
    // A permit without a file to go with it would only make the accept fail.
    config.settings.limits.connections = config.settings.limits.connections.min(room.connections());
    let mut simulator = None;
    if flags.simulate {
        let at = |flag: Option<SocketAddr>, port| flag.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port)));
        let (api, truth) = (at(flags.simulate_listen, 4610), at(flags.truth_listen, 4611));
        let name = flags.scenario.as_deref().unwrap_or("calm");
        let running =
            Running::start(name, flags.seed.unwrap_or(1), api, truth, ["--simulate-listen", "--truth-listen"], None)?;
        use_simulator(&mut config, &running)?;
        simulator = Some(running);
    }
    config.check().map_err(Failed::because)?;
    config.settings.redaction = redaction(&config)?;
    // Before anything listens: a log that cannot be opened is found out at once.
    let log = ConversationLog::open(&config, flags.simulate)?;
    let usage = usage_file(&config)?;
    let (_log, records) = start_log(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
    let served = runtime.block_on(serve(config, simulator.as_ref(), room, records, log, usage));
    if let Some(mut simulator) = simulator {
        simulator.stop();
    }
    served
}

/// What is done with personal data. Keys that are not in the configuration are needed only where
/// nothing outlives the process, and are gone with it.
pub(super) fn redaction(config: &Config) -> Result<Redaction, Failed> {
    let passing = match config.redact.needs_passing_keys() {
        true => Some([key::random()?, key::random()?]),
        false => None,
    };
    config.redact.redaction(passing).map_err(Failed::because)
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
    simulator: Option<&Running>,
    room: Room,
    records: RequestLog,
    mut log: ConversationLog,
    usage: UsageFile,
) -> Result<(), Failed> {
    let clock = Clock::real();
    let dial = TcpDial::new(clock, config.dial, &config.roots).map_err(Failed::because)?;
    let tls = config.server_tls().map_err(Failed::because)?;
    let door = listen(config.listen, "--listen")?;
    let admin = listen(config.admin, "--admin-listen")?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (gateway_at, admin_at) = (door.local(), admin.local());
    let cores = std::thread::available_parallelism().map_or(1, |n| u8::try_from(n.get()).unwrap_or(u8::MAX));
    let threads = config.threads.unwrap_or(cores);
    let open = config.settings.keys.is_empty();
    let drain = config.settings.clocks.drain;
    let upstreams: Vec<String> = config
        .settings
        .organisations
        .iter()
        .flat_map(|o| &o.lanes)
        .map(|l| {
            let through = l.target.proxy.as_ref().map_or_else(String::new, |proxy| format!(" through {proxy}"));
            format!("{} at {}{through}", l.label, l.target.host)
        })
        .collect();
    let store = log.store.take();
    let redact = config.redact.told();
    let gateway = Gateway::keeping(config.settings, clock, Arc::new(dial), Arc::new(records), store, usage);
    let gateway = gateway.await.map_err(Failed::because)?;
    let door: Box<dyn Listen> = match tls {
        Some(tls) => Box::new(TlsListen::new(Box::new(door), tls)),
        None => Box::new(door),
    };
    gateway.serve_on_threads(door, threads).map_err(Failed::because)?;
    let tasks = Tasks::new();
    tasks.spawn(&ADMIN, serve_admin(gateway.clone(), Box::new(admin)));
    greet(&format!("{scheme}://{gateway_at}"), admin_at, simulator, open, room, &log, &redact);
    tracing::info!(target: "tidegate", %gateway_at, %admin_at, threads, upstreams = upstreams.join(", "), redact, "ready");

    asked_to_stop().await?;
    tracing::info!(target: "tidegate", streams = gateway.live().len(), drain_s = drain.as_secs(), "draining; signal again to stop at once");
    let drained = gateway.drain().await;
    tracing::info!(target: "tidegate", cut = drained.cut, "drained");
    Ok(())
}

/// What a newcomer needs to see.
fn greet(
    gateway: &str,
    admin: SocketAddr,
    simulator: Option<&Running>,
    open: bool,
    room: Room,
    log: &ConversationLog,
    redact: &str,
) {
    say(format_args!("Tidegate {}", env!("CARGO_PKG_VERSION")));
    say(format_args!("gateway    {gateway}"));
    say(format_args!("admin      http://{admin}"));
    if let Some(simulator) = simulator {
        say(format_args!("simulator  http://{}", simulator.api));
        say(format_args!("truth      http://{}", simulator.truth));
    }
    match &log.path {
        Some(path) => say(format_args!("memory     {}", path.display())),
        None if simulator.is_some() => say("memory     a scratch file, gone when this ends"),
        None => {}
    }
    say(format_args!("redact     {redact}"));
    say(format_args!(
        "room       {} open files: {} streams to an upstream of HTTP/1.1, {} of HTTP/2 (ulimit -n)",
        room.files, room.streams_http1, room.streams_http2
    ));
    say("");
    if open {
        say("No client keys are configured: any key is taken, and only clients on this machine are served.");
        say("");
    }
    let key = if open { "any" } else { "YOUR_KEY" };
    say("Try it:");
    say(format_args!(
        "  curl -N {gateway}/v1/messages -H 'content-type: application/json' -H 'x-api-key: {key}' -H 'anthropic-version: 2023-06-01' -d '{{\"model\":\"claude-haiku-5-5\",\"max_tokens\":200,\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"
    ));
    say("Python:");
    say(format_args!("  client = anthropic.Anthropic(base_url=\"{gateway}\", api_key=\"{key}\")"));
    say("TypeScript:");
    say(format_args!("  const client = new Anthropic({{ baseURL: \"{gateway}\", apiKey: \"{key}\" }});"));
    say("Look inside:");
    say(format_args!("  curl http://{admin}/metrics    curl http://{admin}/streams    curl http://{admin}/usage"));
    say("");
    say("ready");
}
