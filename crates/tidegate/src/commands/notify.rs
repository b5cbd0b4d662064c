//! What a service manager is told of this process: that it is ready, reloads, stops, or that another one
//! stands in its place. The protocol of systemd: a datagram to the socket that NOTIFY_SOCKET names.
//!
//! Without such a manager nothing is sent; one that does not listen is no trouble of ours.

use super::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};

/// Another process is the manager's by now, and only that one's state is of interest.
static REPLACED: AtomicBool = AtomicBool::new(false);

/// Tells the manager `state`, lines of `NAME=VALUE`.
fn tell(state: &str) {
    if REPLACED.load(Ordering::Relaxed) {
        return;
    }
    let Some(name) = env("NOTIFY_SOCKET") else { return };
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address.and_then(|to| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &to));
    if let Err(error) = sent {
        tracing::debug!(target: "tidegate", %error, "the service manager could not be told");
    }
}

/// It serves. Also what ends a reload.
pub(super) fn ready() {
    tell("READY=1\nSTATUS=serving");
}

/// The configuration is being read anew.
pub(super) fn reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
}

/// It drains.
pub(super) fn stopping() {
    tell("STOPPING=1\nSTATUS=draining");
}

/// The process `pid` has taken over.
pub(super) fn replaced_by(pid: u32) {
    tell(&format!("MAINPID={pid}"));
    REPLACED.store(true, Ordering::Relaxed);
}
