//! The signals that a server heeds. They are listened for before it serves: one that comes early is acted
//! upon when the server is there, and ends nothing by its default.

use super::Failed;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// All of them.
pub(super) struct Signals {
    pub(super) stop: Stop,
    /// SIGHUP: the configuration is to be read anew.
    pub(super) hangup: Signal,
    /// SIGUSR2: a process is to be started that takes over.
    pub(super) upgrade: Signal,
}

impl Signals {
    /// Listens from now on. Called within a runtime.
    pub(super) fn new() -> Result<Self, Failed> {
        let hangup = signal(SignalKind::hangup()).map_err(Failed::because)?;
        let upgrade = signal(SignalKind::user_defined2()).map_err(Failed::because)?;
        Ok(Signals { stop: Stop::new()?, hangup, upgrade })
    }
}

/// SIGTERM and SIGINT: the server is to stop.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self, Failed> {
        let terminate = signal(SignalKind::terminate()).map_err(Failed::because)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(Failed::because)?;
        Ok(Stop { terminate, interrupt })
    }

    /// Waits for one of them; for one that has come since this is there, not at all. Cancel-safe.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The next one ends the process at once.
    pub(super) fn next_ends_the_process(mut self) -> Result<(), Failed> {
        let impatient = std::thread::Builder::new().name("impatience".into());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
        impatient
            .spawn(move || {
                runtime.block_on(async {
                    self.asked().await;
                    std::process::exit(130);
                })
            })
            .map_err(Failed::because)?;
        Ok(())
    }
}

/// Waits for SIGTERM or SIGINT; a second one from then on ends the process at once.
pub(super) async fn asked_to_stop() -> Result<(), Failed> {
    let mut stop = Stop::new()?;
    stop.asked().await;
    stop.next_ends_the_process()
}
