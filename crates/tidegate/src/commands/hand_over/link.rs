//! What elder and heir say to each other: a JSON object a line, and descriptors beside the first answer.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr as TcpAddress;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// One line at most: a conversation's name and its tenant's, escaped.
pub(super) const LINE_MAX: usize = 64 * 1024;
/// The same of a page that an elder shows: 2,000 rows of some kilobytes at most.
const PAGE_MAX: u64 = 32 << 20;
/// Descriptors that are passed: two doors, this socket, the log's lock.
const FDS_MAX: usize = 4;
/// How long the other side may take for a line that needs no work.
pub(super) const WORD_MAX: Duration = Duration::from_secs(10);
/// How long an heir may take to come up: it may read a large configuration from a slow disk.
pub(super) const START_MAX: Duration = Duration::from_secs(120);

/// What an heir says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asks {
    TakeOver {
        pid: u32,
        version: String,
    },
    /// In place of it: the process cannot take over, and this is why.
    Failed {
        pid: u32,
        why: String,
    },
    Ready,
    /// It accepts, and is the one that serves from now on.
    Serving,
    Conversation {
        claim: u64,
        tenant: String,
        name: String,
    },
    Stream {
        claim: u64,
        id: String,
        tenant: String,
        own: Option<u64>,
    },
    CallOff {
        claim: u64,
        id: String,
        tenant: String,
        own: Option<u64>,
    },
    Cancel {
        claim: u64,
        id: String,
    },
    Listing {
        claim: u64,
        query: String,
    },
    /// What a newer one asks; it has patience for that, and no answer is one.
    #[serde(other)]
    Unknown,
}

/// What an elder says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Says {
    /// With the descriptors: if there are doors, the gateway's socket and the operators'; this one; and the
    /// log's lock if there is a log.
    Here {
        pid: u32,
        doors: bool,
        log: Option<PathBuf>,
    },
    Refused {
        why: String,
    },
    Go,
    Word {
        claim: u64,
        yes: bool,
        /// What is shown to operators.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        page: Option<serde_json::Value>,
    },
    /// What a newer one says.
    #[serde(other)]
    Unknown,
}

/// The name of the socket for whoever listens on `gateway`.
fn name(gateway: TcpAddress) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("tidegate/{gateway}"))
}

pub(super) fn bind(gateway: TcpAddress) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&name(gateway)?)
}

pub(super) fn connect(gateway: TcpAddress) -> io::Result<UnixStream> {
    UnixStream::connect_addr(&name(gateway)?)
}

/// Whether the other side is a process of the same user: a name that is no file can be taken by anybody.
pub(super) fn is_ours(socket: impl AsFd) -> bool {
    rustix::net::sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

/// A line of what is to be said.
pub(super) fn line(said: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    Ok(line)
}

/// What a line says. JSON that is none of ours is a newer one's, and `Unknown`.
pub(super) fn said<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    let said: serde_json::Value = serde_json::from_slice(line)?;
    // `serde(other)` alone takes a bare word for it, and nothing that has fields.
    serde_json::from_value(said).or_else(|_| Ok(serde_json::from_value("unknown".into())?))
}

/// Sends a line with descriptors, which fits into the socket's empty buffer whole.
pub(super) fn send(socket: impl AsFd, line: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors"));
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(line)], &mut beside, SendFlags::NOSIGNAL)?;
    if sent == line.len() { Ok(()) } else { Err(io::Error::other("half a line was sent")) }
}

/// Receives what [`send`] has sent; closed in programs that are started from here.
pub(super) fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut line = vec![0; LINE_MAX];
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut line)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    line.truncate(received.bytes);
    let mut fds = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    Ok((line, fds))
}

/// The next line; `None` at the end. Not cancel-safe.
pub(super) async fn next<T: DeserializeOwned>(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let read = from.take(PAGE_MAX).read_until(b'\n', &mut line).await?;
    if read == 0 { Ok(None) } else { said(&line).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_one_says_is_unknown_and_no_end() {
        for line in ["\"novel\"", "{\"novel\":{\"claim\":1}}", "{\"cancel\":{\"other\":1}}", "7"] {
            assert!(matches!(said(line.as_bytes()).unwrap(), Asks::Unknown), "{line}");
            assert!(matches!(said(line.as_bytes()).unwrap(), Says::Unknown), "{line}");
        }
        let line = line(&Asks::Cancel { claim: 1, id: "a".to_owned() }).unwrap();
        assert!(matches!(said(&line).unwrap(), Asks::Cancel { claim: 1, .. }));
        assert!(said::<Asks>(b"{\"cancel\":").is_err(), "that is no line of anybody's");
    }
}
