//! `tidegate health`: one question to the admin port of a running gateway, one word, one exit code.

use super::admin::Admin;
use super::ask::ask_any;
use super::{Failed, say};
use crate::cli::Health;

pub(super) fn run(flags: &Health) -> Result<(), Failed> {
    let path = if flags.ready { "/readyz" } else { "/healthz" };
    let at = Admin::find(&flags.place)?.address();
    let said = ask_any(&at.0, path).map_err(|e| Failed(format!("http://{at}{path}: {e}")))?;
    say(said.trim_end());
    Ok(())
}
