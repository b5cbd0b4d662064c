//! Sockets that a service manager has opened for us (systemd's socket activation): LISTEN_FDS, LISTEN_PID,
//! LISTEN_FDNAMES.
//!
//! Clients connect while nobody serves yet, and wait in the kernel; so a restart refuses nobody. One
//! socket is the gateway's; of several, the names tell: `admin` is the operators', and of the others
//! the one called `gateway`, or the first.

use super::{Failed, env};
use listenfd::ListenFd;
use std::net::TcpListener;

/// The sockets that were passed, as far as they were.
#[derive(Default)]
pub(super) struct Passed {
    pub(super) gateway: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
}

/// Takes them.
pub(super) fn passed() -> Result<Passed, Failed> {
    let mut sockets = ListenFd::from_env();
    let names = env("LISTEN_FDNAMES").unwrap_or_default();
    let Places { gateway, admin } = places(sockets.len(), &names);
    let mut take = |at: Option<usize>| match at {
        None => Ok(None),
        Some(at) => sockets.take_tcp_listener(at).map_err(|e| {
            Failed(format!("socket {at} of LISTEN_FDS cannot be used: {e}; it has to be a TCP socket that listens"))
        }),
    };
    Ok(Passed { gateway: take(gateway)?, admin: take(admin)? })
}

#[derive(Debug, PartialEq, Eq)]
struct Places {
    gateway: Option<usize>,
    admin: Option<usize>,
}

/// Which of `count` sockets is whose, by their names.
fn places(count: usize, names: &str) -> Places {
    let names: Vec<&str> = names.split(':').collect();
    let called = |name: &str| (0..count).find(|n| names.get(*n) == Some(&name));
    let admin = called("admin");
    Places { gateway: called("gateway").or_else(|| (0..count).find(|n| Some(*n) != admin)), admin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_which_socket_is_whose() {
        let check = |count, names: &str| {
            let Places { gateway, admin } = places(count, names);
            (gateway, admin)
        };
        assert_eq!(check(0, ""), (None, None));
        assert_eq!(check(1, ""), (Some(0), None));
        assert_eq!(check(1, "tidegate.socket"), (Some(0), None));
        assert_eq!(check(1, "admin"), (None, Some(0)));
        assert_eq!(check(2, "admin:gateway"), (Some(1), Some(0)));
        assert_eq!(check(2, "web:admin"), (Some(0), Some(1)));
        assert_eq!(check(1, "a:admin"), (Some(0), None), "a name without a socket");
    }
}
