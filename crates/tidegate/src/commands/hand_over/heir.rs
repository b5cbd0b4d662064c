//! The process that comes: it takes over from the one that is there, and claims what it needs of it.

use super::link::{self, Asks, START_MAX, Says, WORD_MAX};
use crate::commands::Failed;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_gateway::{Claim, Claimed, Word};
use tidegate_transport::{Clock, TaskKind, Tasks};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Claims on their way; whoever makes one more waits.
const CLAIMS_MAX: usize = 1_024;

/// Characters of a reason that are told.
const WHY_CHARS_MAX: usize = 4_096;

const CLAIMS: TaskKind = TaskKind {
    name: "claims to the process before",
    on_cancel: "ends with the process",
    on_error: "that process has ended: everything is this one's",
};

/// What came from the process before this one.
pub(in super::super) struct Heir {
    stream: StdStream,
    /// The process before.
    pub(in super::super) elder: u32,
    /// The gateway's socket and the operators', if it still has them.
    doors: Option<[TcpListener; 2]>,
    /// Where the next heir comes to.
    hand_over: UnixListener,
    /// Its conversation log, and the lock of that.
    pub(in super::super) log: Option<(PathBuf, OwnedFd)>,
}

impl Heir {
    /// Meets the process that listens on `gateway`, and is given what it may pass on.
    pub(in super::super) fn meet(gateway: SocketAddr) -> Result<Self, Failed> {
        let failed =
            |why: String| Failed(format!("cannot take over from the process that listens on {gateway}: {why}"));
        let stream = link::connect(gateway).map_err(|e| match e.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => failed(
                "there is none of Tidegate's; start without --upgrade, or say where it listens: --upgrade=ADDRESS"
                    .to_owned(),
            ),
            _ => failed(e.to_string()),
        })?;
        if !link::is_ours(&stream) {
            return Err(failed("it is another user's".to_owned()));
        }
        Heir::given(stream).map_err(|e| failed(e.to_string()))
    }

    fn given(mut stream: StdStream) -> io::Result<Self> {
        let (wait, version) = (Some(WORD_MAX), env!("CARGO_PKG_VERSION").to_owned());
        stream.set_read_timeout(wait)?;
        stream.set_write_timeout(wait)?;
        // One that refuses at once may not listen any more, and has said why.
        let asked = stream.write_all(&link::line(&Asks::TakeOver { pid: std::process::id(), version })?);
        let (line, fds) = link::receive(&stream)?;
        if line.is_empty() {
            return Err(asked.err().unwrap_or_else(|| io::Error::other("it says nothing")));
        }
        let (elder, doors, log) = match link::said(&line) {
            Ok(Says::Here { pid, doors, log }) => (pid, doors, log),
            Ok(Says::Refused { why }) => return Err(io::Error::other(why)),
            _ => return Err(io::Error::other("it does not answer as Tidegate does")),
        };
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(|| io::Error::other("it passed on too few sockets"));
        let doors = if doors { Some([next()?.into(), next()?.into()]) } else { None };
        let hand_over = next()?.into();
        Ok(Heir { stream, elder, doors, hand_over, log: log.zip(fds.next()) })
    }
}

/// Tells the process that listens on `gateway` why this one does not take over from it: its log is where
/// people look who asked it for a successor.
pub(in super::super) fn tell_failed(gateway: SocketAddr, why: &str) {
    let why: String = why.chars().take(WHY_CHARS_MAX).collect();
    let told = link::connect(gateway).and_then(|mut stream| {
        if !link::is_ours(&stream) {
            return Ok(());
        }
        stream.set_write_timeout(Some(WORD_MAX))?;
        stream.write_all(&link::line(&Asks::Failed { pid: std::process::id(), why })?)
    });
    // Where nobody is, nobody asked.
    drop(told);
}

/// Says that this process can serve, and waits until it is to: where it puts what it claims, and who
/// carries that to the elder once this one serves.
pub(in super::super) async fn start(stream: Taking, clock: Clock) -> Result<(mpsc::Sender<Claim>, Following), Failed> {
    let failed = |why: &str| Failed(format!("the process before this one does not hand over: {why}"));
    let began = async {
        stream.0.set_nonblocking(true)?;
        let (read, mut write) = UnixStream::from_std(stream.0)?.into_split();
        let mut read = BufReader::new(read);
        write.write_all(&link::line(&Asks::Ready)?).await?;
        Ok::<_, io::Error>((link::next::<Says>(&mut read).await?, read, write))
    };
    let said = clock.within(START_MAX, began).await.ok_or_else(|| failed("it says nothing"))?;
    match said.map_err(|e| failed(&e.to_string()))? {
        (Some(Says::Go), read, write) => {
            let (claims, wanted) = mpsc::channel(CLAIMS_MAX);
            Ok((claims, Following { read, write, wanted }))
        }
        _ => Err(failed("it ended")),
    }
}

/// The way to the elder, which has stopped accepting.
pub(in super::super) struct Following {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    wanted: mpsc::Receiver<Claim>,
}

impl Following {
    /// Says that this process accepts, and carries its claims from now on.
    pub(in super::super) async fn serves(mut self, tasks: &Tasks) {
        // An elder that is gone at this moment has no part in it any more; that is seen by reading.
        let said = async { self.write.write_all(&link::line(&Asks::Serving)?).await };
        if let Err(error) = said.await {
            tracing::debug!(target: "tidegate", %error, "the process before this one could not be told");
        }
        tasks.spawn(&CLAIMS, carry(self.read, self.write, self.wanted));
    }
}

/// The way to the elder, once its descriptors are in use.
pub(in super::super) struct Taking(StdStream);

impl Heir {
    /// The way to the elder, and all else.
    pub(in super::super) fn into_parts(self) -> (Taking, Inherited) {
        let Heir { stream, doors, hand_over, .. } = self;
        (Taking(stream), Inherited { doors, hand_over })
    }
}

/// Sockets of the process before.
pub(in super::super) struct Inherited {
    /// The gateway's and the operators', if it still has them.
    pub(in super::super) doors: Option<[TcpListener; 2]>,
    pub(in super::super) hand_over: UnixListener,
}

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Word>>>>;

/// Carries claims there and words back, until the elder ends. Whoever waits then hears that it did.
async fn carry(read: BufReader<OwnedReadHalf>, write: OwnedWriteHalf, wanted: mpsc::Receiver<Claim>) {
    let waiting = Waiting::default();
    tokio::select! {
        () = hear(read, &waiting) => {}
        _ = ask(write, wanted, &waiting) => {}
    }
    tracing::info!(target: "tidegate", "the process before this one has ended");
}

async fn hear(mut read: BufReader<OwnedReadHalf>, waiting: &Waiting) {
    while let Ok(Some(says)) = link::next::<Says>(&mut read).await {
        if let Says::Word { claim, yes, page } = says {
            let word = page.map_or(Word::Is(yes), Word::Page);
            let who = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&claim);
            // Who does not wait any more does not want to know.
            let _ = who.map(|who| who.send(word));
        }
    }
}

async fn ask(mut write: OwnedWriteHalf, mut wanted: mpsc::Receiver<Claim>, waiting: &Waiting) -> io::Result<()> {
    let mut claim = 0;
    while let Some(Claim { what, answer }) = wanted.recv().await {
        claim += 1;
        {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.retain(|_, who| !who.is_closed());
            waiting.insert(claim, answer);
        }
        let asks = match what {
            Claimed::Conversation { tenant, name } => Asks::Conversation { claim, tenant, name },
            Claimed::Stream { id, tenant, own } => Asks::Stream { claim, id: id.to_string(), tenant, own },
            Claimed::CallOff { id, tenant, own } => Asks::CallOff { claim, id: id.to_string(), tenant, own },
            Claimed::Cancel(id) => Asks::Cancel { claim, id: id.to_string() },
            Claimed::Listing(query) => Asks::Listing { claim, query },
        };
        write.write_all(&link::line(&asks)?).await?;
    }
    Ok(())
}

/// Starts this program anew, as it was started, to take over from this process; its process id. How it
/// ended, if it did, is told to nobody but the log.
pub(in super::super) fn spawn(program: &Path, gateway: SocketAddr) -> io::Result<u32> {
    let is_upgrade =
        |arg: &OsString| arg.to_str().is_some_and(|arg| arg == "--upgrade" || arg.starts_with("--upgrade="));
    let args = std::env::args_os().skip(1).filter(|arg| !is_upgrade(arg));
    let mut child = Command::new(program)
        .args(args)
        .arg(format!("--upgrade={gateway}"))
        // Sockets that were passed to this process were for it.
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDNAMES")
        .stdin(Stdio::null())
        .spawn()?;
    let pid = child.id();
    std::thread::Builder::new().name("heir".into()).spawn(move || match child.wait() {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::error!(target: "tidegate", pid, %status, "the process that was to take over has ended"),
        Err(error) => {
            tracing::error!(target: "tidegate", pid, %error, "nothing is known of the process that was to take over")
        }
    })?;
    Ok(pid)
}
