//! What the kernel says of a process and its children: processor time, memory, open files.
//!
//! Processor time is the sum over threads of `/proc/PID/task/*/schedstat`, in nanoseconds; a
//! process whose threads come and go is not among those measured here. Memory is the proportional
//! set size (`smaps_rollup`): pages that nginx' workers share count once. Kernel memory for sockets
//! is in none of the figures.

use std::fs;
use std::time::Duration;

/// Whether there is such a process that has not ended.
pub(super) fn exists(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| parent_and_state(&stat).is_some_and(|(_, s)| s != 'Z'))
}

/// The process and all that descend from it, itself first.
pub(super) fn family(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some((parent, _)) = parent_and_state(&stat) {
            parents.push((child, parent));
        }
    }
    descend(pid, &parents)
}

fn descend(pid: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(parent) = all.get(at).copied() {
        all.extend(parents.iter().filter(|(child, of)| *of == parent && *child != parent).map(|(child, _)| *child));
        at += 1;
    }
    all
}

/// Parent and state of a `stat` line; the name before them may hold anything, parentheses too.
fn parent_and_state(stat: &str) -> Option<(u32, char)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// Processor time the processes have used so far.
pub(super) fn cpu(pids: &[u32]) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
            // A thread that ended between the listing and the reading has no file any more.
            let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
            sum += ran(&text).unwrap_or_default();
        }
    }
    Some(sum)
}

/// The first number of a `schedstat` line: nanoseconds on a processor.
fn ran(schedstat: &str) -> Option<Duration> {
    schedstat.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Bytes of memory the processes hold, shared pages divided among those who share them.
pub(super) fn memory(pids: &[u32]) -> Option<u64> {
    let mut sum = 0;
    for pid in pids {
        sum += kilobytes(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")?;
    }
    Some(sum * 1024)
}

/// The number of a line like `Pss:   123 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// How many threads the process has.
pub(super) fn threads(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/task")).ok()?.count())
}

/// How many files it has open, sockets included.
pub(super) fn open_files(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// How many files a process may open: as set, and as far as it may set it itself.
pub(super) fn file_limits() -> Option<(u64, u64)> {
    limits(&fs::read_to_string("/proc/self/limits").ok()?)
}

fn limits(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace();
    let mut next = || match numbers.next()? {
        "unlimited" => Some(u64::MAX),
        n => n.parse().ok(),
    };
    Some((next()?, next()?))
}

/// The machine in a line: processor, cores, memory, kernel.
pub(super) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    described(&read("/proc/cpuinfo"), cores, &read("/proc/meminfo"), kernel.trim())
}

fn described(cpuinfo: &str, cores: usize, meminfo: &str, kernel: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    let gib = kilobytes(meminfo, "MemTotal:").unwrap_or(0) as f64 / (1 << 20) as f64;
    format!("{model}, {cores} cores, {gib:.0} GiB, Linux {kernel}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_of_children_are_family_and_others_are_not() {
        assert_eq!(descend(7, &[(1, 0), (7, 1), (8, 7), (9, 8), (10, 1), (11, 7)]), [7, 8, 11, 9]);
        assert_eq!(descend(0, &[(0, 0), (1, 0)]), [0, 1], "a process that is its own parent ends the search");
    }

    #[test]
    fn a_name_may_hold_what_separates_fields() {
        let stat = "4242 (nginx: (x) ) S) S 4100 4242 1 0 -1 4194624 1 2 3 4 5 6\n";
        assert_eq!(parent_and_state(stat), Some((4100, 'S')));
        assert_eq!(parent_and_state("12 (x"), None);
    }

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(ran("123456789 2000 17\n"), Some(Duration::from_nanos(123_456_789)));
        assert_eq!(ran(""), None);
        let rollup =
            "55d0-7ffc ---p 00000000 00:00 0    [rollup]\nRss:     9000 kB\nPss:     1234 kB\nPss_Anon: 9 kB\n";
        assert_eq!(kilobytes(rollup, "Pss:"), Some(1234));
        assert_eq!(kilobytes(rollup, "Swap:"), None);
        let text = "Limit                     Soft Limit           Hard Limit           Units     \nMax processes             unlimited            unlimited            processes \nMax open files            1024                 unlimited            files     \n";
        assert_eq!(limits(text), Some((1024, u64::MAX)));
    }

    #[test]
    fn a_machine_is_described_in_a_line() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: Example CPU @ 2.00GHz\nprocessor\t: 1\nmodel name\t: Example CPU\n";
        let line = described(cpuinfo, 2, "MemTotal:       16777216 kB\nMemFree: 1 kB\n", "6.1.0");
        assert_eq!(line, "Example CPU @ 2.00GHz, 2 cores, 16 GiB, Linux 6.1.0");
    }

    #[test]
    fn this_process_has_time_memory_and_limits() {
        let me = [std::process::id()];
        assert!(exists(me[0]) && family(me[0])[0] == me[0]);
        assert!(cpu(&me).is_some_and(|cpu| cpu > Duration::ZERO));
        assert!(memory(&me).is_some_and(|bytes| bytes > 100_000));
        assert!(threads(me[0]).is_some_and(|n| n >= 1));
        let before = open_files(me[0]).unwrap();
        let held: Vec<_> = (0..40).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        // Tests beside this one open and close files too, but not forty.
        assert!(open_files(me[0]).unwrap() > before + held.len() / 2);
        assert!(file_limits().is_some_and(|(soft, hard)| soft <= hard && soft > 0));
    }
}
