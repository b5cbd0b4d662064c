//! What a thread of ours cost the machine, from the kernel's own account of it.
//!
//! `/proc/thread-self/schedstat` holds the nanoseconds the calling thread ran and those it was
//! ready to run but had to wait. Where there is no such file the report goes without.

use std::time::Duration;

/// Processor time of one or more threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// Running.
    pub(crate) on_cpu: Duration,
    /// Ready to run, but another had the processor.
    pub(crate) waited: Duration,
}

impl CpuTime {
    /// The calling thread's time so far.
    pub(crate) fn of_this_thread() -> Option<Self> {
        Self::read(&std::fs::read_to_string("/proc/thread-self/schedstat").ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map(|n| n.parse().map(Duration::from_nanos).ok());
        Some(CpuTime { on_cpu: numbers.next()??, waited: numbers.next()?? })
    }

    /// What was added since `earlier`.
    pub(crate) fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            on_cpu: self.on_cpu.saturating_sub(earlier.on_cpu),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }

    /// Both together.
    pub(crate) fn and(self, other: CpuTime) -> CpuTime {
        CpuTime { on_cpu: self.on_cpu + other.on_cpu, waited: self.waited + other.waited }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read() {
        let want = CpuTime { on_cpu: Duration::from_nanos(12), waited: Duration::from_nanos(3) };
        assert_eq!(CpuTime::read("12 3 4\n"), Some(want));
        assert_eq!(CpuTime::read("12 x 4\n"), None);
        assert_eq!(CpuTime::read(""), None);
    }
}
