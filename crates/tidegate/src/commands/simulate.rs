//! `tidegate simulate`: the API on your desk, and the part of `serve --simulate` that starts it.

use super::{Failed, listen, say};
use crate::cli::Simulate;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use tidegate_base::Secret;
use tidegate_simulator::{NAMED, Scenario, Simulator};
use tidegate_simulator_server::{Doors, HTTP2_STREAMS, ProxyRules, SharedSimulator, run_proxy};
use tidegate_transport::{Clock, Listen, ServerTls, Tasks, TcpListen, TlsFiles, TlsListen};
use tokio::sync::oneshot;

/// A scenario by name or from a file.
pub(super) fn scenario(name: &str) -> Result<Scenario, Failed> {
    if let Some(scenario) = Scenario::named(name) {
        return Ok(scenario);
    }
    if !name.ends_with(".toml") {
        return Err(Failed(format!(
            "there is no scenario `{name}`; see `tidegate simulate --list`, or name a .toml file"
        )));
    }
    let text = std::fs::read_to_string(name).map_err(|e| Failed(format!("{name}: cannot be read: {e}")))?;
    Scenario::parse(&text).map_err(|e| Failed(format!("{name}: {e}")))
}

/// A simulator on a thread of its own, ended by dropping it.
pub(super) struct Running {
    pub(super) api: SocketAddr,
    pub(super) truth: SocketAddr,
    /// Organisations the scenario lists, each with its good keys; others are not let in.
    pub(super) organisations: Vec<(String, Vec<String>)>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Running {
    pub(super) fn start(
        name: &str,
        seed: u64,
        api: SocketAddr,
        truth: SocketAddr,
        flags: [&str; 2],
        tls: Option<&TlsFiles>,
    ) -> Result<Self, Failed> {
        let scenario = scenario(name)?;
        let listed = scenario.organisations.iter().filter(|organisation| !organisation.keys.is_empty());
        let organisations = listed.map(|organisation| (organisation.name.clone(), organisation.keys.clone())).collect();
        let tls = tls.map(ServerTls::load).transpose().map_err(Failed::because)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
        let entered = runtime.enter();
        let (api, truth): (TcpListen, TcpListen) = (listen(api, flags[0])?, listen(truth, flags[1])?);
        drop(entered);
        let (api_at, truth_at) = (api.local(), truth.local());
        let clock = Clock::real();
        let epoch_s = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let simulator = SharedSimulator::new(Simulator::new(scenario, seed, epoch_s));
        let (stop, stopped) = oneshot::channel();
        let work = move || {
            runtime.block_on(async {
                let api: Box<dyn Listen> = match tls {
                    Some(tls) => Box::new(TlsListen::new(Box::new(api), tls)),
                    None => Box::new(api),
                };
                let doors = Doors { api, truth: Some(Box::new(truth)), http2_streams: HTTP2_STREAMS };
                let until = async { drop(stopped.await) };
                tidegate_simulator_server::run(doors, simulator, clock, Tasks::new(), until).await
            })
        };
        let thread = std::thread::Builder::new().name("simulator".into()).spawn(work).map_err(Failed::because)?;
        Ok(Running { api: api_at, truth: truth_at, organisations, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A listener's error ends it early; there is nothing left to do about it here.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) fn run(flags: &Simulate) -> Result<(), Failed> {
    if flags.list {
        for (name, _) in NAMED {
            let line = Scenario::named(name).map(|s| s.about).unwrap_or_default();
            say(format_args!("{name:<16} {line}"));
        }
        return Ok(());
    }
    if flags.print {
        let text = NAMED.iter().find(|(name, _)| *name == flags.scenario).map(|(_, text)| *text);
        let text = text.ok_or_else(|| Failed(format!("there is no scenario `{}`; see --list", flags.scenario)))?;
        say(text.trim_end());
        return Ok(());
    }
    let tls = super::serve::tls_files(flags.tls_cert.as_ref(), flags.tls_key.as_ref());
    let names = ["--listen", "--truth-listen"];
    let (api, truth) = (flags.listen, flags.truth_listen);
    let mut running = Running::start(&flags.scenario, flags.seed, api, truth, names, tls.as_ref())?;
    say(format_args!("simulator  {}://{}", if tls.is_some() { "https" } else { "http" }, running.api));
    say(format_args!("truth      http://{}", running.truth));
    say(format_args!("scenario   {} (seed {})", flags.scenario, flags.seed));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
    runtime.block_on(async {
        let Some(at) = flags.proxy_listen else {
            say("ready");
            return super::signals::asked_to_stop().await;
        };
        let proxy = listen(at, "--proxy-listen")?;
        say(format_args!("proxy      http://{0}, socks5h://{0}", proxy.local()));
        say("ready");
        let rules = ProxyRules { to: running.api, login: flags.proxy_login.as_deref().map(Secret::new) };
        // A signal that cannot be waited for ends it at once.
        let stopped = async { drop(super::signals::asked_to_stop().await) };
        run_proxy(Box::new(proxy), rules, Tasks::new(), stopped).await.map_err(Failed::because)
    })?;
    running.stop();
    Ok(())
}
