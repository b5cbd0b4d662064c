//! A conversation's turn, masked: what is new in it, against what the conversation told before.
//!
//! ```text
//!   messages as they came   m1 m2 m3 │ m4            history   M1 M2 M3 (masked)
//!   shown to the client     =  =  =  │ new                     │
//!   taken for the turn      M1 M2 M3 │ masked m4  ◀────────────┘
//! ```
//! A client that sends the history again sends what it was shown. Messages that are that are taken from
//! the log and not masked anew: so they are the same bytes as before, with the signatures that are over
//! them, and what the model said of itself, which nobody has masked, stays what it is.

use super::TurnTrouble;
use super::talk::Talk;
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::house::House;
use crate::redaction::{filtered, shown};
use crate::reply::Reply;
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;
use tidegate_conversation::message::{Message, read_all};
use tidegate_conversation::same::difference;
use tidegate_redact::mask::Filter;
use tidegate_redact::restore::Live;
use tidegate_store::{Address, VaultRecords};
use tidegate_wire::request::MessagesRequest;

/// A body that was masked, and its messages, with the history in the place of what was sent again of it.
pub(super) struct Masked {
    pub(super) body: Bytes,
    pub(super) request: MessagesRequest,
    pub(super) messages: Vec<Message>,
}

/// Reads a conversation's vaults, where there are keys for them.
pub(super) async fn load(house: &House, address: &Address, talk: &mut Talk) -> Result<(), TurnTrouble> {
    let Some(keys) = house.settings.redaction.keys() else { return Ok(()) };
    let vaults = match house.memory.store()?.vault(address.clone()).await? {
        Some(kept) => keys.open(address.tenant(), &kept).map_err(TurnTrouble::Vault)?,
        None => keys.vaults(address.tenant(), address.name()),
    };
    talk.vaults = Some(Box::new(vaults));
    Ok(())
}

/// Masks a body for the conversation `talk`, which is held; `None` where it is taken as it came.
pub(super) async fn mask(
    house: &House,
    reply: &mut Reply<'_>,
    tenant: &str,
    filter: Option<&Arc<Filter>>,
    talk: &mut Talk,
    (body, request): (&Bytes, &MessagesRequest),
    messages: &[Message],
) -> Result<Option<Masked>, Stop> {
    let live = talk.live();
    if filter.is_none() && live.is_empty() {
        return Ok(None);
    }
    let pairs = talk.history.entries().iter().zip(messages);
    let known = pairs.take_while(|(entry, sent)| is_shown(&live, &entry.message, sent)).count();
    let stored = |talk: &Talk| talk.history.entries()[..known].iter().map(|entry| entry.message.clone()).collect();
    let Some(filter) = filter else {
        let mut all: Vec<Message> = stored(talk);
        all.extend_from_slice(&messages[known..]);
        return Ok(Some(Masked { body: body.clone(), request: request.clone(), messages: all }));
    };
    let new = list(&messages[known..]);
    let bare = request.with_messages(body, &new).unwrap_or_else(|| body.clone());
    let mut vaults = talk.vaults.take();
    vaults.iter_mut().for_each(|vaults| vaults.forget_fresh());
    let (masked, vaults) = filtered(house, reply, (tenant, filter), bare.clone(), vaults).await?;
    talk.vaults = vaults;
    let (body, request) = house.settings.redaction.told(filter, masked.unwrap_or(bare))?;
    let wrong = |why: String| Trouble::from(TurnTrouble::Messages(why));
    let at = request.parts.messages.clone().ok_or_else(|| wrong("messages: Field required".to_owned()))?;
    let new = read_all(&body.slice(at)).map_err(|error| wrong(error.to_string()))?;
    let mut all: Vec<Message> = stored(talk);
    for (message, came) in new.into_iter().zip(&messages[known..]) {
        // Behind one that is told apart, too: what the model said of its own is in no vault.
        let entry = talk.history.entries().get(all.len()).filter(|entry| is_shown(&live, &entry.message, came));
        all.push(entry.map_or(message, |entry| entry.message.clone()));
    }
    Ok(Some(Masked { body, request, messages: all }))
}

/// Masks a list of messages that is only to be kept.
pub(super) async fn messages(
    house: &House,
    reply: &mut Reply<'_>,
    (tenant, filter): (&str, Option<&Arc<Filter>>),
    talk: &mut Talk,
    list: Bytes,
) -> Result<Bytes, Stop> {
    const OPEN: &[u8] = b"{\"messages\":";
    let Some(filter) = filter else { return Ok(list) };
    talk.vaults.iter_mut().for_each(|vaults| vaults.forget_fresh());
    let list = Bytes::from([OPEN, &list, b"}"].concat());
    let masked = body(house, reply, (tenant, filter), talk, list).await?;
    // The same outside of its strings.
    Ok(masked.slice(OPEN.len()..masked.len() - 1))
}

/// Masks a body with what the conversation knows, and goes on from what it told before.
pub(super) async fn body(
    house: &House,
    reply: &mut Reply<'_>,
    (tenant, filter): (&str, &Arc<Filter>),
    talk: &mut Talk,
    body: Bytes,
) -> Result<Bytes, Stop> {
    let vaults = talk.vaults.take();
    let (masked, vaults) = filtered(house, reply, (tenant, filter), body.clone(), vaults).await?;
    talk.vaults = vaults;
    Ok(masked.unwrap_or(body))
}

/// Records of what the turn under way told first.
pub(super) fn fresh(house: &House, talk: &mut Talk) -> Result<Option<VaultRecords>, TurnTrouble> {
    match (house.settings.redaction.keys(), &mut talk.vaults) {
        (Some(keys), Some(vaults)) => vaults.fresh(keys).map_err(TurnTrouble::Vault),
        _ => Ok(None),
    }
}

/// Whether a message is what a client was shown of a stored one.
fn is_shown(live: &Live, stored: &Message, sent: &Message) -> bool {
    match shown(live, stored.raw()) {
        Cow::Borrowed(_) => difference(stored, sent).is_none(),
        Cow::Owned(raw) => Message::read(raw.into()).is_ok_and(|shown| difference(&shown, sent).is_none()),
    }
}

/// Messages as a list.
pub(super) fn list(messages: &[Message]) -> Vec<u8> {
    let texts: Vec<&[u8]> = messages.iter().map(|message| &message.raw()[..]).collect();
    [b"[", texts.join(&b","[..]).as_slice(), b"]"].concat()
}

/// What a request is known by again. Of what was not masked, no plain hash is kept.
pub(super) fn hash(house: &House, tenant: &str, masks: bool, came: &[u8], masked: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    match house.settings.redaction.keys() {
        Some(keys) if masks => keys.digest(tenant, came),
        _ => Sha256::digest(if masks { masked } else { came }).into(),
    }
}

/// What the readers of a conversation that is not in use get for its tokens.
pub(super) async fn live_of(house: &House, address: &Address) -> Result<Live, TurnTrouble> {
    let Some(keys) = house.settings.redaction.keys() else { return Ok(Live::default()) };
    let kept = house.memory.store()?.vault(address.clone()).await?;
    let open = |kept| keys.open(address.tenant(), kept).map_err(TurnTrouble::Vault);
    Ok(kept.as_ref().map(open).transpose()?.map_or_else(Live::default, |vaults| vaults.live()))
}
