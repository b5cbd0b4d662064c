//! The process that is there: it hands over to one that comes, and answers that one's claims until it ends.

use super::link::{self, Asks, START_MAX, Says, WORD_MAX};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use tidegate_base::StreamId;
use tidegate_gateway::{Claimed, Gateway};
use tidegate_transport::{Clock, TaskKind, Tasks};
use tokio::io::{AsyncWriteExt, BufReader, Interest};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc};

const CLAIM: TaskKind = TaskKind {
    name: "claim of the next process",
    on_cancel: "that process sees this one end, and takes everything for its own",
    on_error: "the same",
};

/// Waits for whoever takes over.
pub(in super::super) struct Elder {
    listener: UnixListener,
    gateway: Gateway,
    clock: Clock,
    /// What is passed on: the gateway's socket, the operators', and the one that heirs come to.
    sockets: [OwnedFd; 3],
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
        let listener = passed_on.map_or_else(|| link::bind(at), Ok)?;
        listener.set_nonblocking(true)?;
        let [door, admin] = doors;
        let sockets = [door, admin, listener.as_fd().try_clone_to_owned()?];
        Ok(Elder { listener: UnixListener::from_std(listener)?, gateway, clock, sockets })
    }

    /// Waits for an heir, hands over to it, tells `heirs`, and answers its claims until it ends.
    pub(in super::super) async fn run(self, heirs: mpsc::Sender<u32>) {
        let (pid, stream) = self.next_heir().await;
        let gateway = self.gateway.clone();
        // The sockets too: should the heir end, clients are to be refused and not to wait for nobody.
        drop(self);
        let _ = heirs.send(pid).await;
        attend(gateway, stream).await;
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
                Err(error) => {
                    tracing::error!(target: "tidegate", %error, "a process that was to take over did not; this one goes on serving");
                }
            }
        }
    }

    async fn refuse(&self, mut stream: UnixStream, why: &str) {
        tracing::warn!(target: "tidegate", why, "a process wanted to take over, and may not");
        if let Ok(line) = link::line(&Says::Refused { why: why.to_owned() }) {
            // Who does not listen any more does not want to know.
            let _ = self.clock.within(WORD_MAX, stream.write_all(&line)).await;
        }
    }

    /// Everything up to "go"; until then nothing has changed here.
    async fn hand_over(&self, stream: UnixStream) -> io::Result<(u32, BufReader<UnixStream>)> {
        if !link::is_ours(&stream) {
            return Err(io::Error::other("it is another user's"));
        }
        if self.gateway.is_leaving() {
            self.refuse(stream, "this process is going down").await;
            return Err(io::Error::other("this one is going down itself"));
        }
        let mut stream = BufReader::new(stream);
        let first = self.clock.within(WORD_MAX, link::next(&mut stream)).await;
        let Some(Some(Asks::TakeOver { pid, version })) = first.transpose()? else {
            return Err(io::Error::other("it did not say what it wants"));
        };
        tracing::info!(target: "tidegate", pid, version, "a process comes to take over");
        let log = self.gateway.share_log().transpose().map_err(io::Error::other)?;
        let (path, lock) = log.map_or((None, None), |(path, lock)| (Some(path), Some(lock)));
        let here = link::line(&Says::Here { pid: std::process::id(), log: path })?;
        let fds: Vec<_> = self.sockets.iter().chain(&lock).map(AsFd::as_fd).collect();
        let socket = stream.get_ref();
        socket.writable().await?;
        socket.try_io(Interest::WRITABLE, || link::send(socket, &here, &fds))?;
        drop(fds);
        let ready = self.clock.within(START_MAX, link::next(&mut stream)).await;
        match ready.transpose()?.flatten() {
            Some(Asks::Ready) => {}
            _ => {
                return Err(io::Error::other(
                    "it ended before it was ready, or took too long; its own output says why",
                ));
            }
        }
        self.gateway.accepts_no_more();
        // From here on there is no way back: an heir that is gone all the same leaves nobody listening, and
        // whoever started it sees it end.
        stream.get_mut().write_all(&link::line(&Says::Go)?).await?;
        Ok((pid, stream))
    }
}

/// Answers the heir's claims, each when it can be, until the heir ends.
async fn attend(gateway: Gateway, stream: BufReader<UnixStream>) {
    // An heir claims nothing before it has heard "go", so nothing was read beyond its last line.
    let (read, write) = stream.into_inner().into_split();
    let (mut read, write) = (BufReader::new(read), Arc::new(Mutex::new(write)));
    let tasks = Tasks::new();
    while let Ok(Some(asks)) = link::next::<Asks>(&mut read).await {
        let (claim, what) = match asks {
            Asks::Conversation { claim, tenant, name } => (claim, Some(Claimed::Conversation { tenant, name })),
            Asks::Stream { claim, id } => (claim, StreamId::parse(&id).map(Claimed::Stream)),
            Asks::TakeOver { .. } | Asks::Ready => continue,
        };
        let (gateway, write) = (gateway.clone(), Arc::clone(&write));
        tasks.spawn(&CLAIM, async move {
            let yes = match what {
                Some(what) => gateway.answer(what).await,
                None => false,
            };
            // An heir that is gone asks no more.
            let _ = say(&write, &Says::Word { claim, yes }).await;
        });
    }
}

async fn say(to: &Mutex<OwnedWriteHalf>, says: &Says) -> io::Result<()> {
    to.lock().await.write_all(&link::line(says)?).await
}
