//! The configuration read anew while the gateway runs: on SIGHUP, when one of its files changes, or when
//! an operator asks.
//!
//! ```text
//!   SIGHUP, POST /reload ──────────────────┐
//!   stamps of the files, every half second ┴─▶ read all ─▶ check all ─▶ put in place ─▶ say what changed
//!     changed, and then not again for so long         └ anything wrong: nothing changes, say what and where
//! ```
//! The whole is read before anything is put in place, so a file with an error changes nothing. What
//! cannot change while the process runs stays as it was at the start, is left out of what is put in
//! place, and is named as long as the file says otherwise ([`picture::needs_restart`]): a revoked key
//! must not stay good because somebody also wrote down another port.

mod once;
mod picture;
mod watch;

use super::notify;
use super::serve::{Prepared, Served, prepare};
pub(super) use once::Once;
use picture::Picture;
use serde_json::json;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;
use tidegate_base::Moment;
use tidegate_gateway::{Gateway, Said};
use tidegate_transport::{Clock, ServerTls};
use watch::Watch;

/// Names told in one line of the log.
const NAMES_MAX: usize = 40;

/// Puts another certificate in place.
pub(super) type RenewTls = Box<dyn Fn(ServerTls) + Send>;

/// What reads the configuration anew.
pub(super) struct Reloader<'s> {
    served: Served<'s>,
    gateway: Gateway,
    renew_tls: Option<RenewTls>,
    clock: Clock,
    /// What was there at the start, and what is in force.
    start: Picture,
    now: Picture,
    generation: u64,
    watch: Watch,
    /// What was read last, for what cannot be read again.
    read: Once,
}

/// Why the configuration was not taken: a text for a person.
type Refused = String;

impl<'s> Reloader<'s> {
    /// Watches what the gateway was started with, which was read from `read`.
    pub(super) fn new(
        served: Served<'s>,
        gateway: Gateway,
        renew_tls: Option<RenewTls>,
        clock: Clock,
        read: Once,
    ) -> Self {
        let config = served.flags.config.as_deref();
        let start = config.and_then(|path| Picture::of(path, &beside(&served), &read).ok()).unwrap_or_default();
        let watch = Watch::on(read.stamps(), start.files());
        let now = start.clone();
        // Of what was read only pipes are needed again; the rest holds keys.
        let read = read.again();
        let reloader = Reloader { served, gateway, renew_tls, clock, start, now, generation: 1, watch, read };
        reloader.told(0);
        reloader
    }

    /// Whether the simulated API is in this process.
    pub(super) fn simulates(&self) -> bool {
        self.served.flags.simulate
    }

    fn told(&self, needs_restart: usize) {
        let at = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.gateway.metrics().config_in_force(self.generation, at, needs_restart);
    }

    /// Waits until one of the files has changed and come to rest.
    pub(super) async fn changed(&mut self) {
        self.watch.changed(self.clock).await;
    }

    /// Reads everything anew and puts it in place, or nothing.
    pub(super) fn reload(&mut self, why: &'static str) -> Said {
        let began = self.clock.now();
        let Some(path) = self.served.flags.config.clone() else {
            let text = "there is no configuration file: the gateway was started without --config";
            tracing::warn!(target: "tidegate", why, "nothing to read anew: {text}");
            return Said::Refused("no_configuration", text.to_owned());
        };
        notify::reloading();
        let read = self.read.again();
        // Before the files are read: what is written meanwhile is a change to come.
        let mut stamps = self.watch.settle();
        let picture = Picture::of(&path, &beside(&self.served), &read);
        let refused = picture.as_ref().map(Picture::files).unwrap_or_default();
        let taken = picture.and_then(|picture| self.take(picture, &read));
        let mut files = self.now.files();
        if taken.is_err() {
            // Whatever was wrong may be in a file that only this one names, and is mended there.
            files.extend(refused);
        }
        stamps.extend(read.stamps());
        self.watch.go_on(stamps, files);
        self.read = read.again();
        notify::ready();
        let metrics = self.gateway.metrics();
        match taken {
            Ok(told) => {
                metrics.config_reload(if told.changed.is_empty() { "unchanged" } else { "applied" });
                self.told(told.needs_restart.len());
                self.say(why, began, &told);
                Said::Done(json!({
                    "generation": self.generation, "changed": told.changed, "needs_restart": told.needs_restart,
                }))
            }
            Err(refused) => {
                metrics.config_reload("refused");
                tracing::error!(target: "tidegate", why, error = refused, "the configuration was refused; what was in force stays in force");
                Said::Refused("configuration_refused", refused)
            }
        }
    }

    /// Takes what is in the files now.
    fn take(&mut self, picture: Picture, read: &Once) -> Result<Told, Refused> {
        let all = picture.needs_restart(&self.start);
        let changed = picture.changes(&self.now, &self.start);
        // Checked even if nothing of it changed: who asks wants to know whether it is good.
        let Prepared { config, tls } = prepare(&self.served, read).map_err(|failed| failed.to_string())?;
        if !changed.is_empty() {
            self.gateway.renew(config.settings).map_err(|e| e.to_string())?;
            if let (Some(tls), Some(renew)) = (tls, &self.renew_tls) {
                renew(tls);
            }
            self.generation += 1;
        }
        self.now = picture;
        Ok(Told { changed, needs_restart: all })
    }

    fn say(&self, why: &'static str, began: Moment, told: &Told) {
        let list = |names: &[String]| {
            let more = names.len().saturating_sub(NAMES_MAX);
            let shown = names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
            if more == 0 { shown } else { format!("{shown} and {more} more") }
        };
        let took_ms = self.clock.now().since(began).as_millis() as u64;
        if told.changed.is_empty() {
            tracing::info!(target: "tidegate", why, took_ms, "the configuration was read anew, and is the same");
        } else {
            let (changed, generation) = (list(&told.changed), self.generation);
            tracing::info!(target: "tidegate", why, changed, generation, took_ms, "the configuration was read anew");
        }
        if !told.needs_restart.is_empty() {
            let settings = list(&told.needs_restart);
            tracing::warn!(target: "tidegate", settings, "these need a restart or an upgrade; until then they are as they were at the start");
        }
    }
}

/// Files that are read with the configuration because flags say so.
fn beside<'s>(served: &Served<'s>) -> Vec<&'s PathBuf> {
    served.flags.tls_cert.iter().chain(&served.flags.tls_key).collect()
}

/// What became of it.
struct Told {
    changed: Vec<String>,
    needs_restart: Vec<String>,
}
