//! `tidegate health`: one question to the admin port of a running gateway, one word, one exit code.

use super::ask::ask_any;
use super::{Failed, say};
use crate::cli::Health;

pub(super) fn run(flags: &Health) -> Result<(), Failed> {
    let path = if flags.ready { "/readyz" } else { "/healthz" };
    let said = ask_any(&flags.admin.0, path).map_err(|e| Failed(format!("http://{}{path}: {e}", flags.admin)))?;
    say(said.trim_end());
    Ok(())
}
