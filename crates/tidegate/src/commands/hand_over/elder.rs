//! The process that is there: it hands over to one that comes, and answers that one's claims until it ends.
//!
//! ```text
//!   serves ── an heir is ready ──▶ accepts nothing ── it serves ──▶ goes ── it has ended ──▶ goes, and waits
//!     ▲                               │                                                       for another heir,
//!     └────── it ended before ────────┘                                                       that opens its own
//!                                                                                             doors
//! ```
//! It is not undone that the heir served once: what it was given is its, and it may have been told things
//! that this process was not. So an heir that ends later leaves nobody who accepts, until another comes.

use super::link::{self, Asks, START_MAX, Says, WORD_MAX};
use crate::commands::notify;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::StreamId;
use tidegate_gateway::{Claimed, Gateway, Word};
use tidegate_transport::{Clock, TaskKind, Tasks};
use tokio::io::{AsyncWriteExt, BufReader, Interest};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

const CLAIM: TaskKind = TaskKind {
    name: "claim of the next process",
    on_cancel: "that process sees this one end, and takes everything for its own",
    on_error: "the same",
};

/// How often it is tried to have the name again that heirs come to.
const NAME_EVERY: Duration = Duration::from_secs(1);

/// Waits for whoever takes over.
pub(in super::super) struct Elder {
    listener: UnixListener,
    gateway: Gateway,
    clock: Clock,
    /// Where the gateway listens; the name of the socket that heirs come to.
    at: SocketAddr,
    /// What is passed on beside the socket that heirs come to: the gateway's and the operators', as long as
    /// this process is the one that serves.
    doors: Option<[OwnedFd; 2]>,
}

/// Why a process that came did not take over.
enum NotTaken {
    /// It is none of ours, or speaks otherwise.
    Stranger(&'static str),
    Failed(io::Error),
}

impl From<io::Error> for NotTaken {
    fn from(error: io::Error) -> Self {
        NotTaken::Failed(error)
    }
}

fn waits_at(listener: StdListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

impl Elder {
    /// Waits at the name for `at`, or at a socket that was passed on with it.
    pub(in super::super) fn new(
        at: SocketAddr,
        passed_on: Option<StdListener>,
        gateway: Gateway,
        clock: Clock,
        doors: [OwnedFd; 2],
    ) -> io::Result<Self> {
        let listener = waits_at(passed_on.map_or_else(|| link::bind(at), Ok)?)?;
        Ok(Elder { listener, gateway, clock, at, doors: Some(doors) })
    }

    /// Waits for an heir, hands over to it, tells `heirs`, and answers its claims until it ends; and again.
    /// Ends when this process drains before anybody has come: its sockets are the ones that clients come to.
    pub(in super::super) async fn run(self, heirs: mpsc::Sender<u32>) {
        let mut elder = self;
        loop {
            let (pid, stream) = tokio::select! {
                biased;
                () = elder.gateway.drain_begun() => return,
                heir = elder.next_heir() => heir,
            };
            let (serves, mut began) = oneshot::channel();
            let mut attending = std::pin::pin!(attend(elder.gateway.clone(), stream, serves));
            let has_ended = tokio::select! {
                biased;
                () = &mut attending => true,
                // One that says nothing for so long and still is there may serve all the same.
                _ = elder.clock.within(WORD_MAX, &mut began) => false,
            };
            // One that ended may have served before.
            if has_ended && began.try_recv().is_err() {
                elder.goes_on();
                tracing::error!(target: "tidegate", pid, "the process that was to take over ended before it served; this one goes on serving");
                continue;
            }
            elder.gateway.handed_over();
            notify::replaced_by(pid);
            // Only the first is waited for.
            let _ = heirs.try_send(pid);
            let (gateway, clock, at) = (elder.gateway.clone(), elder.clock, elder.at);
            // The sockets too: should the heir end, clients are to be refused and not to wait for nobody.
            drop(elder);
            if !has_ended {
                attending.await;
            }
            // The name was the heir's, and is free now, or when whoever has it from that has ended.
            let listener = loop {
                match link::bind(at).and_then(waits_at) {
                    Ok(listener) => break listener,
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                        clock.sleep_until(clock.now() + NAME_EVERY).await;
                    }
                    Err(error) => {
                        return tracing::debug!(target: "tidegate", %error, "no other process takes over from this one");
                    }
                }
            };
            elder = Elder { listener, gateway, clock, at, doors: None };
            elder.goes_on();
            tracing::error!(
                target: "tidegate", pid,
                "the process that took over has ended, and nobody accepts: start one with --upgrade, which has not to wait until this one has ended its streams"
            );
        }
    }

    /// All is this process' again, and it accepts, if it has not handed over before.
    fn goes_on(&self) {
        self.gateway.accepts_again();
        if let Err(error) = self.gateway.holds_log() {
            tracing::warn!(target: "tidegate", %error, "it could not be noted who holds the conversation log");
        }
    }

    /// Hands over to the first who can take it.
    async fn next_heir(&self) -> (u32, BufReader<UnixStream>) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                self.clock.sleep_until(self.clock.now() + WORD_MAX).await;
                continue;
            };
            let mut taking = std::pin::pin!(self.hand_over(stream));
            let taken = loop {
                tokio::select! {
                    // Who did not take over says why on a connection of its own, when this one has ended.
                    biased;
                    taken = &mut taking => break taken,
                    other = self.listener.accept() => {
                        if let Ok((other, _)) = other {
                            self.refuse(other, "another process is taking over at this moment").await;
                        }
                    }
                }
            };
            match taken {
                Ok(heir) => return heir,
                Err(NotTaken::Stranger(why)) => {
                    tracing::debug!(target: "tidegate", why, "somebody came to take over who is none of ours");
                }
                Err(NotTaken::Failed(error)) => {
                    self.goes_on();
                    tracing::error!(target: "tidegate", %error, "a process that was to take over did not; this one goes on serving");
                }
            }
        }
    }

    async fn refuse(&self, mut stream: UnixStream, why: &str) {
        if !link::is_ours(&stream) {
            return;
        }
        tracing::warn!(target: "tidegate", why, "a process wanted to take over, and may not");
        if let Ok(line) = link::line(&Says::Refused { why: why.to_owned() }) {
            // Who does not listen any more does not want to know.
            let _ = self.clock.within(WORD_MAX, stream.write_all(&line)).await;
        }
    }

    /// Everything up to "go"; until then nothing has changed here but that nothing is accepted.
    async fn hand_over(&self, stream: UnixStream) -> Result<(u32, BufReader<UnixStream>), NotTaken> {
        if !link::is_ours(&stream) {
            return Err(NotTaken::Stranger("it is another user's"));
        }
        let mut stream = BufReader::new(stream);
        let first = self.clock.within(WORD_MAX, link::next(&mut stream)).await;
        let (pid, version) = match first {
            Some(Ok(Some(Asks::TakeOver { pid, version }))) => (pid, version),
            Some(Ok(Some(Asks::Failed { pid, why }))) => {
                return Err(io::Error::other(format!("process {pid}: {why}")).into());
            }
            _ => return Err(NotTaken::Stranger("it did not say what it wants")),
        };
        tracing::info!(target: "tidegate", pid, version, "a process comes to take over");
        let log = self.gateway.share_log().transpose().map_err(io::Error::other)?;
        let (path, lock) = log.map_or((None, None), |(path, lock)| (Some(path), Some(lock)));
        let here = link::line(&Says::Here { pid: std::process::id(), doors: self.doors.is_some(), log: path })?;
        let (doors, own) = (self.doors.iter().flatten().map(AsFd::as_fd), self.listener.as_fd());
        let fds: Vec<_> = doors.chain([own]).chain(lock.iter().map(AsFd::as_fd)).collect();
        let socket = stream.get_ref();
        socket.writable().await?;
        socket.try_io(Interest::WRITABLE, || link::send(socket, &here, &fds))?;
        drop(fds);
        let ready = self.clock.within(START_MAX, link::next(&mut stream)).await;
        match ready.transpose()?.flatten() {
            Some(Asks::Ready) => {}
            _ => {
                let why = "it ended before it was ready, or took too long; its own output says why";
                return Err(io::Error::other(why).into());
            }
        }
        // First nothing is accepted here, and then it is there; so nobody is served by both.
        self.gateway.accepts_no_more().await;
        stream.get_mut().write_all(&link::line(&Says::Go)?).await?;
        Ok((pid, stream))
    }
}

/// Answers the heir's claims, each when it can be, until the heir ends; tells when it `serves`.
async fn attend(gateway: Gateway, stream: BufReader<UnixStream>, serves: oneshot::Sender<()>) {
    // An heir claims nothing before it has heard "go", so nothing was read beyond its last line.
    let (read, write) = stream.into_inner().into_split();
    let (mut read, write) = (BufReader::new(read), Arc::new(Mutex::new(write)));
    let (mut claims, mut serves) = (Claims::default(), Some(serves));
    while let Ok(Some(asks)) = link::next::<Asks>(&mut read).await {
        let (claim, what) = match asks {
            Asks::Conversation { claim, tenant, name } => (claim, Some(Claimed::Conversation { tenant, name })),
            Asks::Stream { claim, id, tenant, own } => {
                (claim, StreamId::parse(&id).map(|id| Claimed::Stream { id, tenant, own }))
            }
            Asks::CallOff { claim, id, tenant, own } => {
                (claim, StreamId::parse(&id).map(|id| Claimed::CallOff { id, tenant, own }))
            }
            Asks::Cancel { claim, id } => (claim, StreamId::parse(&id).map(Claimed::Cancel)),
            Asks::Listing { claim, query } => (claim, Some(Claimed::Listing(query))),
            Asks::Serving => {
                // Who does not wait for it any more took it for said.
                let _ = serves.take().map(|serves| serves.send(()));
                continue;
            }
            Asks::TakeOver { .. } | Asks::Failed { .. } | Asks::Ready | Asks::Unknown => continue,
        };
        let (gateway, write) = (gateway.clone(), Arc::clone(&write));
        claims.spawn(async move {
            let word = match what {
                Some(what) => gateway.answer(what).await,
                None => Word::Is(false),
            };
            let (yes, page) = match word {
                Word::Is(yes) => (yes, None),
                Word::Page(page) => (true, Some(page)),
            };
            // An heir that is gone asks no more.
            let _ = say(&write, &Says::Word { claim, yes, page }).await;
        });
    }
}

/// What an heir waits for. It ends with the heir: what nobody asks for any more is not given away.
#[derive(Default)]
struct Claims {
    tasks: Tasks,
    running: Vec<JoinHandle<()>>,
}

impl Claims {
    fn spawn(&mut self, claim: impl Future<Output = ()> + Send + 'static) {
        if self.running.len().is_power_of_two() {
            self.running.retain(|claim| !claim.is_finished());
        }
        self.running.push(self.tasks.spawn(&CLAIM, claim));
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

async fn say(to: &Mutex<OwnedWriteHalf>, says: &Says) -> io::Result<()> {
    to.lock().await.write_all(&link::line(says)?).await
}
