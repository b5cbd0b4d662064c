//! What the processes that `bench peers`, `bench soak` and `bench --scenario` start stand on: a folder that goes when it
//! is over, free ports, processes that end with us, and a wish to stop that every wait looks at.

use super::{Failed, proc};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::Clock;
use tokio::signal::unix::{SignalKind, signal};

/// What a process gets to answer for the first time.
pub(super) const START_MAX: Duration = Duration::from_secs(20);
/// How often is asked whether it does: finer than any difference that matters.
const ASK_EVERY: Duration = Duration::from_micros(500);
/// What a process gets to end by itself once it is asked to.
const END_MAX: Duration = Duration::from_secs(3);
/// How often is looked whether something has come.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Set by SIGINT or SIGTERM, however often they come: what was started is still ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Listens for the signals, on a thread of its own.
    pub(super) fn on_signals() -> Result<Self, Failed> {
        let stop = Stop::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
        let (mut interrupt, mut terminate) = {
            let _entered = runtime.enter();
            let listen = |kind| signal(kind).map_err(Failed::because);
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?)
        };
        let told = stop.clone();
        let watch = move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    told.set();
                }
            })
        };
        std::thread::Builder::new().name("interrupt".into()).spawn(watch).map_err(Failed::because)?;
        Ok(stop)
    }

    pub(super) fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Whether to stop.
    pub(super) fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `span`, or ends with an error if all is to stop.
    pub(super) fn pause(&self, span: Duration) -> Result<(), Failed> {
        let set = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(set, span, |set| !*set);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 { Err(Failed("stopped".to_owned())) } else { Ok(()) }
    }
}

/// A folder under the machine's folder for temporary files, removed with everything in it.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self, Failed> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let cannot = |e| Failed(format!("cannot make the folder {}: {e}", path.display()));
        std::fs::create_dir_all(&path).map_err(cannot)?;
        Ok(Folder(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and tells its path.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failed> {
        let path = self.0.join(name);
        std::fs::write(&path, text).map_err(|e| Failed(format!("cannot write {}: {e}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A file that cannot be removed is the machine's to clean up, as all of that folder is.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An address on this machine that nobody listens on. Another process could take it before it is
/// used; whoever starts something there notices and is told.
pub(super) fn free_address() -> Result<SocketAddr, Failed> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    free.map_err(|e| Failed(format!("no free port: {e}")))
}

/// Raises the number of files this process, and so those it starts, may have open as far as it
/// may; the number there is then.
pub(super) fn raise_files() -> u64 {
    let Some((soft, hard)) = proc::file_limits() else { return u64::MAX };
    if soft < hard {
        let (me, limit) = (std::process::id().to_string(), format!("--nofile={hard}:{hard}"));
        // Without the tool the limit stays; rows it is too small for say so.
        let _ = Command::new("prlimit").args(["--pid", &me, &limit]).stderr(Stdio::null()).status();
    }
    proc::file_limits().map_or(u64::MAX, |(soft, _)| soft)
}

/// A process of ours and its children, ended when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    clock: Clock,
    said: PathBuf,
}

impl Process {
    /// Starts `program`; what it writes goes to a file in `folder` that is shown if it fails.
    pub(super) fn start(
        name: &'static str,
        program: &Path,
        args: &[&str],
        folder: &Folder,
        keep_output: bool,
    ) -> Result<Self, Failed> {
        let said = folder.path().join(format!("{name}.out"));
        let output = if keep_output { said.clone() } else { PathBuf::from("/dev/null") };
        let open = || File::create(&output).map_err(|e| Failed(format!("{}: {e}", output.display())));
        let mut command = Command::new(program);
        command.args(args).env_remove("ANTHROPIC_API_KEY").env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let clock = Clock::real();
        let child = command.spawn().map_err(|e| Failed(format!("cannot start {}: {e}", program.display())))?;
        Ok(Process { name, child, clock, said })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Since when it runs.
    pub(super) fn age(&self) -> Duration {
        self.clock.now().since(Moment::ZERO)
    }

    /// What it said before it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let said = std::fs::read_to_string(&self.said).unwrap_or_default();
        let last: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = last[last.len().saturating_sub(3)..].join("; ");
        Some(format!("{} ended at once ({status}): {last}", self.name))
    }

    /// Waits until it answers; how long after its start that was.
    pub(super) fn until(&mut self, stop: &Stop, answers: impl Fn() -> bool) -> Result<Duration, Failed> {
        loop {
            if answers() {
                return Ok(self.age());
            }
            if let Some(said) = self.ended() {
                return Err(Failed(said));
            }
            if self.age() > START_MAX {
                return Err(Failed(format!("{} does not answer within {} s", self.name, START_MAX.as_secs())));
            }
            stop.pause(if self.age() < Duration::from_secs(1) { ASK_EVERY } else { LOOK_EVERY })?;
        }
    }

    fn signal(&self, signal: &str, pids: &[u32]) {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let kill = format!("kill -{signal} {}", pids.join(" "));
        // A process that is gone already is what was wanted.
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let all = proc::family(self.pid());
        self.signal("TERM", &[self.pid()]);
        let asked = self.clock.now();
        let patient = Stop::default();
        while matches!(self.child.try_wait(), Ok(None)) && self.clock.now().since(asked) < END_MAX {
            let _ = patient.pause(LOOK_EVERY);
        }
        let left: Vec<u32> = all.into_iter().filter(|pid| proc::exists(*pid)).collect();
        if !left.is_empty() {
            self.signal("KILL", &left);
        }
        // Only to leave no zombie; what was killed has ended.
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_its_children_end_with_their_owner() {
        let folder = Folder(std::env::temp_dir().join(format!("tidegate-stage-{}", std::process::id())));
        std::fs::create_dir_all(folder.path()).unwrap();
        // The shell ignores the polite signal, and so does its child.
        let script = "trap '' TERM; (trap '' TERM; while true; do sleep 1; done) & wait; while true; do sleep 1; done";
        let process = Process::start("stubborn", Path::new("sh"), &["-c", script], &folder, true).unwrap();
        let patient = Stop::default();
        for _ in 0..200 {
            if proc::family(process.pid()).len() >= 3 {
                break;
            }
            patient.pause(LOOK_EVERY).unwrap();
        }
        let family = proc::family(process.pid());
        assert!(family.len() >= 2, "{family:?}");
        drop(process);
        patient.pause(Duration::from_millis(100)).unwrap();
        let left = family[..2].iter().filter(|pid| proc::exists(**pid)).count();
        assert_eq!(left, 0, "{family:?}");
    }

    #[test]
    fn what_a_process_said_before_it_failed_is_told() {
        let folder = Folder(std::env::temp_dir().join(format!("tidegate-said-{}", std::process::id())));
        std::fs::create_dir_all(folder.path()).unwrap();
        let mut process =
            Process::start("brief", Path::new("sh"), &["-c", "echo no such port >&2; exit 3"], &folder, true).unwrap();
        let patient = Stop::default();
        let told = (0..200).find_map(|_| {
            let _ = patient.pause(LOOK_EVERY);
            process.ended()
        });
        let told = told.unwrap();
        assert!(told.contains("brief") && told.contains("no such port") && told.contains('3'), "{told}");
    }

    #[test]
    fn a_wish_to_stop_ends_a_pause() {
        let stop = Stop::default();
        assert!(stop.pause(Duration::from_millis(1)).is_ok() && !stop.is_set());
        stop.set();
        assert!(stop.pause(Duration::from_secs(3600)).is_err() && stop.is_set());
    }
}
