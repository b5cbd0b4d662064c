//! Whether connections are accepted at this moment: a process that is about to hand over lets its
//! acceptor rest, and has it go on if nobody took over after all.
//!
//! ```text
//!   accepts ── rest ──▶ asked to ── between two connections ──▶ rests ── go on ──▶ accepts
//! ```
//! What comes meanwhile waits in the kernel, for whoever accepts next.

use tokio::sync::watch;

/// The acceptor's switch, and what it says of itself.
pub(crate) struct Accepting {
    wanted: watch::Sender<bool>,
    /// Nothing is accepted, and nothing that was is on its way to a thread.
    rests: watch::Sender<bool>,
}

impl Default for Accepting {
    fn default() -> Self {
        Accepting { wanted: watch::Sender::new(true), rests: watch::Sender::new(true) }
    }
}

impl Accepting {
    /// The acceptor is there, until this is dropped.
    pub(crate) fn begins(&self) -> Accepts<'_> {
        self.rests.send_replace(false);
        Accepts(self)
    }

    /// Waits until the acceptor rests, or has ended.
    pub(crate) async fn rest(&self) {
        self.wanted.send_replace(false);
        // The senders live as long as this.
        let _ = self.rests.subscribe().wait_for(|rests| *rests).await;
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.wanted.send_replace(true);
    }
}

/// The acceptor's side.
pub(crate) struct Accepts<'a>(&'a Accepting);

impl Accepts<'_> {
    /// Waits until it is to rest.
    pub(crate) async fn to_rest(&self) {
        let _ = self.0.wanted.subscribe().wait_for(|wanted| !wanted).await;
    }

    /// Rests until it is to go on.
    pub(crate) async fn rest(&self) {
        self.0.rests.send_replace(true);
        let _ = self.0.wanted.subscribe().wait_for(|wanted| *wanted).await;
        self.0.rests.send_replace(false);
    }
}

impl Drop for Accepts<'_> {
    fn drop(&mut self) {
        self.0.rests.send_replace(true);
    }
}
