//! The log's way out: lines are collected in memory, and one thread writes them to standard error.
//!
//! A write for every request costs as much as a write of its answer, and a standard error that
//! nobody reads (a full pipe) would stop the thread that writes to it, with all its streams. So a
//! line is appended under a lock held for a copy's time, and leaves within 20 ms together with its
//! neighbours. What does not fit while nobody reads is dropped, counted, and told once there is
//! room again. A process that is killed loses the last 20 ms.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait to be written: about a second of lines at full load.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// How long lines are collected before they are written.
const COLLECT: Duration = Duration::from_millis(20);

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines, and a moment more for their neighbours; what came, and whether it is all.
    fn collect(&self) -> (Vec<u8>, u64, bool) {
        let idle = |s: &mut State| s.lines.is_empty() && s.dropped == 0 && !s.ended;
        let state = self.changed.wait_while(self.state(), idle).unwrap_or_else(PoisonError::into_inner);
        let going_on = |s: &mut State| !s.ended;
        let waited = self.changed.wait_timeout_while(state, COLLECT, going_on);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut state.lines), std::mem::take(&mut state.dropped), state.ended)
    }
}

/// Takes whole lines; clones write to the same log.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Shared>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        let was_idle = state.lines.is_empty() && state.dropped == 0;
        if state.lines.len() + line.len() > WAITING_BYTES_MAX {
            state.dropped += 1;
        } else {
            state.lines.extend_from_slice(line);
        }
        drop(state);
        if was_idle {
            self.0.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

/// The writing thread. Dropping it writes what is there.
pub(crate) struct LogThread {
    lines: Lines,
    thread: Option<JoinHandle<()>>,
}

impl LogThread {
    /// Starts writing to `out`.
    pub(crate) fn start(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let lines = Lines(Arc::clone(&shared));
        let work = move || {
            loop {
                let (lines, dropped, ended) = shared.collect();
                // Nobody is left to be told that standard error is closed.
                let _ = out.write_all(&lines);
                if dropped > 0 {
                    let _ =
                        writeln!(out, "WARN tidegate::log: {dropped} lines were dropped: standard error is not read");
                }
                let _ = out.flush();
                if ended {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("log".into()).spawn(work)?;
        Ok(LogThread { lines, thread: Some(thread) })
    }

    /// Where lines are put in.
    pub(crate) fn lines(&self) -> Lines {
        self.lines.clone()
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.lines.0.state().ended = true;
        self.lines.0.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// An output that takes a write only when it is told to.
    struct Slow(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the sender is gone it takes everything.
            let _ = self.0.recv();
            self.1.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_arrives_in_order_once_the_thread_has_ended() {
        let (taken, written) = (mpsc::sync_channel(0), Arc::new(Mutex::new(Vec::new())));
        let log = LogThread::start(Slow(taken.1, Arc::clone(&written))).unwrap();
        drop(taken.0);
        let want: Vec<u8> = (0..1000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        for n in 0..1000 {
            log.lines().write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        drop(log);
        assert_eq!(*written.lock().unwrap(), want);
    }

    #[test]
    fn an_output_that_is_not_read_stops_nobody_and_the_loss_is_told() {
        let (taken, written) = (mpsc::sync_channel(0), Arc::new(Mutex::new(Vec::new())));
        let log = LogThread::start(Slow(taken.1, Arc::clone(&written))).unwrap();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..50 {
            log.lines().write_all(&line).unwrap();
        }
        drop(taken.0);
        drop(log);
        let written = written.lock().unwrap();
        let text = String::from_utf8_lossy(&written);
        let tail = &text[text.len().saturating_sub(100)..];
        assert!(tail.contains("lines were dropped"), "{tail}");
        assert!(written.len() <= 2 * WAITING_BYTES_MAX + 200, "{}", written.len());
    }
}
