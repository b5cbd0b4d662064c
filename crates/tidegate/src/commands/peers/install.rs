//! Where nginx and HAProxy are on this machine, and getting them from Debian's packages.
//!
//! What is there is used as it is. What is not is installed, if this is Debian and we may; the
//! package would also start a service of its own on port 80, which `RUNLEVEL=1` keeps it from.

use crate::commands::Failed;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Folders that servers are in although a user's PATH may not have them.
const SERVER_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// A program by name.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SERVER_FOLDERS.map(PathBuf::from));
    found_in(program, folders)
}

fn found_in(program: &str, folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// A program by name, from its package of the same name if need be. `otherwise` is what can be done
/// without it.
pub(super) fn find_or_install(program: &str, otherwise: &str) -> Result<PathBuf, Failed> {
    if let Some(path) = find(program) {
        return Ok(path);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(apt) = find("apt-get").filter(|_| is_root(&status)) else {
        return Err(Failed(format!(
            "{program} is not installed: run `apt-get install {program}` as root, or {otherwise}"
        )));
    };
    let install = || apt_get(&apt, &["install", "-y", "-qq", "--no-install-recommends", program]);
    // A slim image has no lists of packages.
    let installed = install().or_else(|_| apt_get(&apt, &["update", "-qq"]).and_then(|()| install()));
    installed.map_err(|why| Failed(format!("{program} is not installed and apt-get cannot install it: {why}")))?;
    find(program).ok_or_else(|| Failed(format!("apt-get installed {program}, but it is not in PATH")))
}

fn apt_get(apt: &Path, args: &[&str]) -> Result<(), String> {
    let mut command = Command::new(apt);
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1").stdin(Stdio::null());
    let output = command.output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(said.lines().last().unwrap_or("no reason given").to_owned()) }
}

/// Whether the effective user of a `/proc/PID/status` is root.
fn is_root(status: &str) -> bool {
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_ascii_whitespace().nth(1)) == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_counts() {
        assert!(is_root("Name:\tx\nUid:\t1000\t0\t0\t0\n"));
        assert!(!is_root("Name:\tx\nUid:\t0\t1000\t0\t0\n") && !is_root(""));
    }

    #[test]
    fn the_first_folder_that_has_it_wins_and_folders_are_no_programs() {
        let folder = std::env::temp_dir().join(format!("tidegate-find-{}", std::process::id()));
        for part in ["a/gate", "b", "c"] {
            std::fs::create_dir_all(folder.join(part)).unwrap();
        }
        std::fs::write(folder.join("b/gate"), "").unwrap();
        std::fs::write(folder.join("c/gate"), "").unwrap();
        let found = found_in("gate", ["a", "b", "c"].map(|part| folder.join(part)).into_iter());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, Some(folder.join("b/gate")));
    }
}
