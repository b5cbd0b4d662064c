//! Phase 5, mask, and what undoes it for a reader: each tenant's filter, and the keys of vaults.
//!
//! ```text
//!   body ─▶ mask ─▶ recall, estimate, upstream, log, journal: masked text, and nothing else
//!             │
//!             └─▶ vaults of this conversation or this request ─▶ restored for whoever reads
//! ```
//! | file | what it is |
//! |---|---|
//! | `filtering` | a body through its tenant's filter, here or beside the streams |
//! | `vaults` | which scope a value belongs to, and how long it is known |
//! | `explain` | what the model is told of tokens |
//! | `shown` | an answer on its way to its reader |
//!
//! What is found and what stands in its place is the redact room's. When a part of this fails, the
//! request does.

mod explain;
mod filtering;
mod reseal;
mod shown;
mod vaults;

pub(crate) use filtering::filtered;
pub(crate) use shown::{Restoring, shown};
pub(crate) use vaults::Vaults;

use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::connection::Peer;
use crate::decode::Body;
use crate::house::House;
use crate::identify::Caller;
use crate::reply::Reply;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::borrow::Cow;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tidegate_conversation::message::Message;
use tidegate_redact::mask::Filter;
use tidegate_redact::rules::{Policy, Style};
use tidegate_redact::vault::KeyRing;
use tidegate_wire::request::MessagesRequest;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// The keys behind tokens: one that makes them, and those that seal what they stand for.
pub struct VaultKeys {
    /// Makes every scope's key. Where it is changed, old tokens are restored no longer.
    master: Zeroizing<[u8; 32]>,
    /// Seals records; the newest first.
    ring: KeyRing,
}

impl VaultKeys {
    /// The keys.
    pub fn new(master: Zeroizing<[u8; 32]>, ring: KeyRing) -> Self {
        VaultKeys { master, ring }
    }
}

impl fmt::Debug for VaultKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultKeys").field("ring", &self.ring).finish_non_exhaustive()
    }
}

/// What is done with personal data, by tenant.
#[derive(Clone, Debug)]
pub struct Redaction {
    tenants: BTreeMap<Arc<str>, Option<Arc<Filter>>>,
    others: Option<Arc<Filter>>,
    keys: Option<Arc<VaultKeys>>,
    unexplained: bool,
    /// Large bodies that are being masked.
    large: Arc<Semaphore>,
}

impl Default for Redaction {
    fn default() -> Self {
        let large = Arc::new(Semaphore::new(filtering::LARGE_AT_ONCE_MAX));
        Redaction { tenants: BTreeMap::new(), others: None, keys: None, unexplained: false, large }
    }
}

impl Redaction {
    /// Nothing is looked for, and nothing is restored.
    pub fn off() -> Self {
        Redaction::default()
    }

    /// Nothing is looked for, but what conversations hold under these keys is restored.
    pub fn with_keys(keys: VaultKeys) -> Self {
        Redaction { keys: Some(Arc::new(keys)), ..Redaction::default() }
    }

    /// The filter of tenants that have none of their own. One whose rules are off is none.
    #[must_use]
    pub fn for_all(self, filter: Option<Arc<Filter>>) -> Self {
        Redaction { others: filter.filter(|filter| !filter.rules().is_off()), ..self }
    }

    /// The filter of one tenant, in place of the one for all; `None` is off.
    #[must_use]
    pub fn for_tenant(mut self, tenant: impl Into<Arc<str>>, filter: Option<Arc<Filter>>) -> Self {
        self.tenants.insert(tenant.into(), filter.filter(|filter| !filter.rules().is_off()));
        self
    }

    /// Whether the model is told, in one line of the system prompt, what tokens are. It is, unless
    /// this says no.
    #[must_use]
    pub fn explained(self, yes: bool) -> Self {
        Redaction { unexplained: !yes, ..self }
    }

    /// Whether some tenant's values get tokens.
    pub fn makes_tokens(&self) -> bool {
        let all = self.tenants.values().chain(std::iter::once(&self.others)).flatten();
        all.into_iter().any(|filter| makes_tokens(filter))
    }

    /// Whether some tenant's values get tokens and there are no keys for that: requests would be
    /// refused.
    pub fn lacks_keys(&self) -> bool {
        self.keys.is_none() && self.makes_tokens()
    }

    /// The filter of a tenant, if anything is looked for.
    pub(crate) fn filter(&self, tenant: &str) -> Option<&Arc<Filter>> {
        self.tenants.get(tenant).unwrap_or(&self.others).as_ref()
    }

    /// The keys behind tokens.
    pub(crate) fn keys(&self) -> Option<&Arc<VaultKeys>> {
        self.keys.as_ref()
    }

    /// A masked body, with the line about tokens if the model is to have it; and what it says now.
    pub(crate) fn told(&self, filter: &Filter, body: Bytes) -> Result<(Bytes, MessagesRequest), Trouble> {
        let request = MessagesRequest::read(&body).map_err(Trouble::Body)?;
        if self.unexplained || !makes_tokens(filter) {
            return Ok((body, request));
        }
        let body = explain::explained(&body, &request);
        let request = MessagesRequest::read(&body).map_err(Trouble::Body)?;
        Ok((body, request))
    }
}

/// The tenant whose scopes a caller's values belong to. Those who bring an upstream credential are one
/// tenant by name, and nothing to each other.
pub(crate) fn tenant_of(caller: &Caller) -> Cow<'_, str> {
    match caller.own {
        Some(own) => Cow::Owned(format!("{}\u{3}{own:x}", caller.tenant.name)),
        None => Cow::Borrowed(&caller.tenant.name),
    }
}

/// The filter that a request has to pass, if there is one. What Tidegate asks for itself is made of
/// masked texts, and its answer is kept masked.
pub(crate) fn filter_of<'h>(house: &'h House, caller: &Caller, peer: &Peer) -> Option<&'h Arc<Filter>> {
    let filter = house.settings.redaction.filter(&caller.tenant.name)?;
    if matches!(peer, Peer::Errand(_)) { None } else { Some(filter) }
}

/// The phase, for a request without a conversation.
pub(crate) async fn mask(
    house: &House,
    reply: &mut Reply<'_>,
    caller: &Caller,
    filter: &Arc<Filter>,
    body: &mut Body,
    request: &mut MessagesRequest,
) -> Result<(), Stop> {
    let redaction = &house.settings.redaction;
    let (tenant, name) = (tenant_of(caller), &caller.tenant.name);
    let keys = redaction.keys.as_ref().filter(|_| makes_tokens(filter));
    let vaults = keys.map(|keys| Box::new(keys.of_request(&tenant, &beginning(&body.bytes, request))));
    let (masked, vaults) = filtered(house, reply, (name, filter), body.bytes.clone(), vaults).await?;
    let (bytes, read) = redaction.told(filter, masked.unwrap_or_else(|| body.bytes.clone()))?;
    put(body, bytes)?;
    *request = read;
    if let Some(vaults) = vaults {
        reply.restores(vaults.live());
    }
    Ok(())
}

/// Other bytes in a body's place, leased.
pub(crate) fn put(body: &mut Body, bytes: Bytes) -> Result<(), Trouble> {
    if !body.lease.resize(bytes.len() as u64) {
        return Err(Trouble::BodyBudget);
    }
    body.bytes = bytes;
    Ok(())
}

/// The texts of a request's first message: what stays when its client sends more. Marks for the cache
/// wander, and are not among them.
fn beginning(body: &[u8], request: &MessagesRequest) -> Vec<u8> {
    let list = request.parts.messages.clone().and_then(|at| serde_json::from_slice::<Vec<&RawValue>>(&body[at]).ok());
    let Some(first) = list.as_ref().and_then(|list| list.first()) else { return Vec::new() };
    let mut texts = Vec::new();
    if let Ok(message) = Message::read(Bytes::copy_from_slice(first.get().as_bytes())) {
        message.texts(&mut |_, text| {
            texts.extend_from_slice(text.as_bytes());
            texts.push(0);
        });
    }
    if texts.is_empty() { first.get().as_bytes().to_vec() } else { texts }
}

/// Whether a filter puts tokens in the place of anything.
fn makes_tokens(filter: &Filter) -> bool {
    let rules = filter.rules();
    rules.style == Style::Token && rules.policies.contains(&Policy::Mask)
}
