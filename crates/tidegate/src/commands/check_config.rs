//! `tidegate check-config`: all that can be known of a configuration without serving by it.
//!
//! Files that it names are opened as `serve` would open them, certificates are read, and of files that are
//! yet to be made the folder is tried, by a file that is there for a moment. So it is best run by the
//! user that the gateway runs as. What is suspicious and not wrong is told as a warning, and ends with 0.

use super::{Failed, env, say};
use crate::config::Config;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::path::Path;
use tidegate_transport::{Clock, TcpDial};

pub(super) fn run(file: &Path) -> Result<(), Failed> {
    let config = Config::load(file, &env).map_err(Failed::because)?;
    let wrong = |why: &dyn std::fmt::Display| Failed(format!("{}: {why}", file.display()));
    config.check().map_err(|e| wrong(&e))?;
    let tls = config.server_tls().map_err(|e| wrong(&e))?;
    TcpDial::new(Clock::real(), config.dial, &config.roots).map_err(|e| wrong(&e))?;
    for (name, path) in [("conversations.file", &config.conversations), ("usage.file", &config.usage)] {
        let Some(path) = path else { continue };
        writable(path).map_err(|e| wrong(&format!("{name}: {} cannot be written: {e}", path.display())))?;
    }
    let keys: usize = config.settings.organisations.iter().map(|o| o.lanes.len()).sum();
    say(format_args!("{}: good", file.display()));
    let spoken = if tls.is_some() { " with TLS" } else { "" };
    say(format_args!("  listens on {}{spoken}, operators on {}", config.listen, config.admin));
    say(format_args!(
        "  {} organisation(s) with {keys} key(s), {} client key(s)",
        config.settings.organisations.len(),
        config.settings.keys.len()
    ));
    if let Some((path, keys)) = &config.keys_file {
        say(format_args!("  file of keys: {}, {} key(s)", path.display(), keys.keys.len()));
    }
    if let Some(path) = &config.conversations {
        say(format_args!("  conversations: {}", path.display()));
    }
    say(format_args!("  redaction: {}", config.redact.told()));
    let budgets = config.settings.tenants.iter().filter(|tenant| tenant.budget.is_some()).count();
    let kept = config.usage.as_ref().or(config.conversations.as_ref());
    let kept = kept.map_or_else(|| "in memory only".to_owned(), |file| format!("kept in {}", file.display()));
    say(format_args!("  usage: {kept}, {budgets} tenant(s) with a budget"));
    for warning in warnings(&config) {
        say(format_args!("  warning: {warning}"));
    }
    Ok(())
}

/// Whether the file at `path` can be written, or made.
fn writable(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        opened => return opened.map(drop),
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".check-{}", std::process::id()));
    let tried = path.with_file_name(name);
    OpenOptions::new().write(true).create_new(true).open(&tried)?;
    std::fs::remove_file(&tried)
}

/// What may be meant so, and mostly is not.
fn warnings(config: &Config) -> Vec<String> {
    let settings = &config.settings;
    let mut warnings = Vec::new();
    let known: BTreeSet<&str> = settings.keys.iter().map(|key| &*key.tenant).collect();
    for tenant in settings.tenants.iter().filter(|tenant| tenant.budget.is_some()) {
        if settings.keys_only && !known.contains(&*tenant.name) && &*tenant.name != "own" {
            let name = &tenant.name;
            warnings.push(format!(
                "tenant `{name}` has a budget and no client key; is its name that of its keys? (`tidegate key list`)"
            ));
        }
        if config.usage.is_none() && config.conversations.is_none() {
            warnings.push(format!(
                "tenant `{}` has a budget, and what was used is kept in memory only: a restart begins its month anew; name a `file` under [usage]",
                tenant.name
            ));
        }
    }
    if settings.keys_only && settings.keys.is_empty() {
        warnings.push("there is no client key: nobody is served until `tidegate key new` has made one".to_owned());
    }
    if !config.admin.ip().is_loopback() {
        warnings.push(format!(
            "operators connect on {} from other machines too, and without authentication: whoever reaches it can read what is under way and cancel it",
            config.admin
        ));
    }
    warnings
}
