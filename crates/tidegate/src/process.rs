//! What this process may take of the machine: open files up to the hard limit, no core dumps.
//!
//! A core dump would write every credential and every message in memory to a disk, so there is
//! none. Each stream takes a socket to its client and, over HTTP/1.1, one to the upstream; over
//! HTTP/2 a hundred share one. How many that allows is said at start, not found out at night.

use rlimit::Resource;
use std::io;

/// Open files that are no stream: listeners, log, runtimes, the operators' connections.
const FILES_ASIDE: u64 = 100;
/// Streams that share one HTTP/2 connection to the upstream.
const STREAMS_PER_CONNECTION: u64 = 100;

/// How many streams the limit of open files allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Files this process may have open.
    pub(crate) files: u64,
    /// Streams whose upstream speaks HTTP/1.1.
    pub(crate) streams_http1: u64,
    /// Streams whose upstream speaks HTTP/2.
    pub(crate) streams_http2: u64,
}

impl Room {
    /// The most client connections that leave files for everything else.
    pub(crate) fn connections(self) -> usize {
        usize::try_from(self.files.saturating_sub(FILES_ASIDE)).unwrap_or(usize::MAX).max(1)
    }

    fn of(files: u64) -> Self {
        let sockets = files.saturating_sub(FILES_ASIDE);
        let streams_http2 = sockets - sockets / (STREAMS_PER_CONNECTION + 1);
        Room { files, streams_http1: sockets / 2, streams_http2 }
    }
}

/// Raises the limit of open files as far as this user may, and switches core dumps off. That more
/// files cannot be had is no error: it shows in the number that is said.
pub(crate) fn prepare() -> io::Result<Room> {
    Resource::CORE.set(0, 0)?;
    let files = rlimit::increase_nofile_limit(u64::MAX).or_else(|_| Resource::NOFILE.get_soft())?;
    Ok(Room::of(files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_takes_two_files_or_little_more_than_one() {
        assert_eq!(Room::of(20_000), Room { files: 20_000, streams_http1: 9_950, streams_http2: 19_703 });
        assert_eq!(Room::of(50), Room { files: 50, streams_http1: 0, streams_http2: 0 });
    }

    #[test]
    fn after_it_the_soft_limit_is_the_hard_one_and_there_is_no_core() {
        let room = prepare().unwrap();
        let (soft, hard) = Resource::NOFILE.get().unwrap();
        assert_eq!((soft, room.files), (hard, hard));
        assert_eq!(Resource::CORE.get().unwrap(), (0, 0));
    }
}
