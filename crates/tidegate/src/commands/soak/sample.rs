//! What is looked at: the kernel's account of the process, and what the admin port says it holds.

use crate::commands::ask::ask;
use crate::commands::stage::Process;
use crate::commands::{Failed, proc};
use std::net::SocketAddr;
use std::time::Duration;

/// What Tidegate says it holds for others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::commands) struct Held {
    pub(in crate::commands) streams: f64,
    pub(in crate::commands) waiting: f64,
    pub(in crate::commands) leases: f64,
    pub(in crate::commands) body_bytes: f64,
    pub(in crate::commands) backlog_bytes: f64,
    pub(in crate::commands) journal_bytes: f64,
    pub(in crate::commands) clients: f64,
    /// Connections to upstreams: in use, and kept for the next request.
    pub(in crate::commands) busy: f64,
    pub(in crate::commands) kept: f64,
    /// Leases that were lost, ever.
    pub(in crate::commands) leaked: f64,
}

impl Held {
    fn read(metrics: &str) -> Self {
        let sum = |name: &str, label: &str| {
            let values = metrics.lines().filter_map(|line| {
                let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
                let ours = labels.is_empty() || labels.starts_with('{');
                value.parse::<f64>().ok().filter(|_| ours && labels.contains(label))
            });
            values.sum()
        };
        Held {
            streams: sum("tidegate_streams_open", ""),
            waiting: sum("tidegate_queue_waiting", ""),
            leases: sum("tidegate_leases", ""),
            body_bytes: sum("tidegate_budget_bytes", "\"bodies\""),
            backlog_bytes: sum("tidegate_budget_bytes", "\"backlogs\""),
            journal_bytes: sum("tidegate_budget_bytes", "\"journals\""),
            clients: sum("tidegate_client_connections", ""),
            busy: sum("tidegate_upstream_connections", "\"busy\""),
            kept: sum("tidegate_upstream_connections", "\"idle\""),
            leaked: sum("tidegate_leases_leaked_total", ""),
        }
    }

    /// What has to be zero when nobody asks for anything, by name.
    pub(in crate::commands) fn to_be_zero(self) -> [(&'static str, f64); 9] {
        [
            ("streams", self.streams),
            ("waiting requests", self.waiting),
            ("leases", self.leases),
            ("bytes of bodies", self.body_bytes),
            ("bytes of backlogs", self.backlog_bytes),
            ("bytes of journals", self.journal_bytes),
            ("client connections", self.clients),
            ("busy upstream connections", self.busy),
            ("leaked leases", self.leaked),
        ]
    }
}

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::commands) struct Sample {
    /// Since the load began.
    pub(in crate::commands) at: Duration,
    /// Bytes, as proportional set size.
    pub(in crate::commands) memory: f64,
    pub(in crate::commands) threads: usize,
    pub(in crate::commands) files: usize,
    /// Processor time since the process began.
    pub(in crate::commands) cpu: Duration,
    pub(in crate::commands) held: Held,
}

/// Looks at one process of Tidegate.
pub(in crate::commands) struct Eye {
    pub(in crate::commands) pid: u32,
    pub(in crate::commands) admin: SocketAddr,
}

impl Eye {
    /// A look. The kernel is asked first: the question to the admin port is itself a file.
    pub(in crate::commands) fn look(&self, at: Duration, process: &mut Process) -> Result<Sample, Failed> {
        let seen = || {
            let (memory, cpu) = (proc::memory(&[self.pid])? as f64, proc::cpu(&[self.pid])?);
            Some(Sample {
                at,
                memory,
                threads: proc::threads(self.pid)?,
                files: proc::open_files(self.pid)?,
                cpu,
                held: Held::default(),
            })
        };
        let Some(sample) = seen() else {
            let why = process.ended().unwrap_or_else(|| "the kernel does not tell what tidegate takes".to_owned());
            return Err(Failed(why));
        };
        let metrics = ask(self.admin, "/metrics").map_err(|e| Failed(format!("tidegate's admin port: {e}")))?;
        Ok(Sample { held: Held::read(&metrics), ..sample })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_by_name_and_label() {
        let held = Held::read(
            "# HELP tidegate_leases Leases.\ntidegate_leases 7\ntidegate_leases_leaked_total 2\n\
             tidegate_budget_bytes{budget=\"bodies\"} 65536\ntidegate_budget_bytes{budget=\"backlogs\"} 5\n\
             tidegate_budget_bytes{budget=\"journals\"} 6\n\
             tidegate_upstream_connections{lane=\"one/0\",state=\"busy\"} 3\n\
             tidegate_upstream_connections{lane=\"two/0\",state=\"busy\"} 4\n\
             tidegate_upstream_connections{lane=\"two/0\",state=\"idle\"} 1\ntidegate_streams_open 9\n",
        );
        let want = Held {
            streams: 9.0,
            leases: 7.0,
            body_bytes: 65_536.0,
            backlog_bytes: 5.0,
            journal_bytes: 6.0,
            busy: 7.0,
            kept: 1.0,
            leaked: 2.0,
            ..Held::default()
        };
        assert_eq!(held, want);
        assert_eq!(held.to_be_zero().iter().filter(|(_, n)| *n > 0.0).count(), 7);
    }
}
