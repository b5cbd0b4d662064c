//! `tidegate key reseal`: after a new vault key, every record in the conversation log is sealed under it.
//!
//! The log belongs to one process at a time, so the gateway rests meanwhile. A conversation is one
//! transaction; a run that is broken off is simply done again.

use super::{Failed, env, say};
use crate::cli::Reseal;
use crate::config::Config;
use tidegate_store::{Store, StoreError};

/// Conversations that are asked for at once.
const ROWS: u32 = 100;

pub(super) fn run(flags: &Reseal) -> Result<(), Failed> {
    let redact = Config::redaction_in(&flags.config, &env, true).map_err(Failed::because)?;
    let keys = redact.vault_keys().map_err(Failed::because)?;
    let keys = keys.ok_or_else(|| {
        Failed(format!("{}: [redact] has no vault_keys, so nothing is sealed", flags.config.display()))
    })?;
    let file = match &flags.conversations {
        Some(file) => file.clone(),
        None => Config::conversations_in(&flags.config).map_err(Failed::because)?.ok_or_else(|| {
            Failed(format!("{}: [conversations] has no file; name one with --conversations", flags.config.display()))
        })?,
    };
    // A log that is made here would only hide that the name is wrong.
    if !file.exists() {
        return Err(Failed(format!("{}: there is no such file", file.display())));
    }
    let because = |e: StoreError| Failed(format!("{}: {e}", file.display()));
    let store = Store::open(&file, tidegate_store::Settings::default())
        .map_err(|e| Failed(format!("{} cannot be opened: {e}", file.display())))?;
    let (mut after, mut conversations, mut anew, mut records) = (0, 0u64, 0u64, 0u64);
    loop {
        let (addresses, next) = store.vaults(after, ROWS).wait().map_err(because)?;
        for address in addresses {
            let Some(kept) = store.vault(address.clone()).wait().map_err(because)? else { continue };
            conversations += 1;
            let sealed = keys.reseal(address.tenant(), &kept).map_err(|e| {
                Failed(format!("conversation `{}` of tenant `{}`: {e}", address.name(), address.tenant()))
            })?;
            if let Some(sealed) = sealed {
                anew += 1;
                records += sealed.records.len() as u64;
                store.reseal(address, sealed).wait().map_err(because)?;
            }
        }
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    say(format_args!("{conversations} conversations have a vault; {anew} were sealed anew, {records} records"));
    say(format_args!("everything is under key {}; the others are needed no more", keys.newest()));
    Ok(())
}
