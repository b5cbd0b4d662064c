//! One body through its tenant's filter: here if it is small, beside the streams if it is not.
//!
//! An error is never a pass: a refusal of the filter, a missing key and a panic inside it all end the
//! request.

use super::{Redaction, Vaults, makes_tokens};
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::house::House;
use crate::reply::Reply;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tidegate_redact::detect::Scratch;
use tidegate_redact::kind::Kind;
use tidegate_redact::mask::{Filter, Masked, Refusal, Report};
use tidegate_redact::rules::Style;

/// Bodies up to this are masked on the thread that has the streams. Prose of this size takes 0.2 ms;
/// the slowest text, a table of numbers, 7 ms a pass (`docs/redaction.md`).
const AT_ONCE_BYTES: usize = 64 << 10;
/// Larger ones that are masked at the same time; the others wait in their order.
pub(super) const LARGE_AT_ONCE_MAX: usize = 2;

thread_local! {
    /// Buffers that were used before: what a search allocates is a good part of what it costs.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Puts `body` through `filter`: the bytes to send, `None` for those that came, and the vaults with what
/// it told. Those are gone if the client leaves meanwhile.
pub(crate) async fn filtered(
    house: &House,
    reply: &mut Reply<'_>,
    (tenant, filter): (&str, &Arc<Filter>),
    body: Bytes,
    mut vaults: Option<Box<Vaults>>,
) -> Result<(Option<Bytes>, Option<Box<Vaults>>), Stop> {
    let size = body.len() + vaults.as_ref().map_or(0, |vaults| vaults.bytes());
    let masked = if size <= AT_ONCE_BYTES {
        mask(filter, &body, vaults.as_deref_mut())
    } else {
        let permits = Arc::clone(&house.settings.redaction.large);
        // Never closed.
        let permit = reply.attend(permits.acquire_owned()).await?;
        let filter = Arc::clone(filter);
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let masked = mask(&filter, &body, vaults.as_deref_mut());
            (masked, vaults)
        });
        let (masked, back) = reply.attend(work).await?.unwrap_or_else(|_| (Err(Refusal::Failed), None));
        vaults = back;
        masked
    };
    match masked {
        Ok(Masked { bytes, report }) => {
            count(house, tenant, filter, &report);
            Ok((bytes.map(Bytes::from), vaults))
        }
        Err(refusal) => {
            count_refused(house, tenant, &refusal);
            Err(Trouble::Redacted(refusal).into())
        }
    }
}

fn mask(filter: &Filter, body: &[u8], vaults: Option<&mut Vaults>) -> Result<Masked, Refusal> {
    guarded(|scratch| {
        let mut scopes = vaults.map(Vaults::scopes);
        filter.mask_request(body, scopes.as_mut(), scratch)
    })
}

/// A panic is a refusal. What it leaves in the buffers is overwritten by the next search; the vaults go
/// with the request.
fn guarded(work: impl FnOnce(&mut Scratch) -> Result<Masked, Refusal>) -> Result<Masked, Refusal> {
    let work = || SCRATCH.with(|scratch| work(&mut scratch.borrow_mut()));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Refusal::Failed))
}

impl Redaction {
    /// An end user's id as the log has it, if that is not as it is: with what is masked in it, the same
    /// in all conversations of a tenant, so that all of them are found by it. In place of a tag, which
    /// others have as well, stands a hash. An id that the filter refuses is an error here too, and never
    /// passes as it is.
    pub(crate) fn end_user(&self, tenant: &str, id: &str) -> Result<Option<String>, Refusal> {
        let Some(filter) = self.filter(tenant) else { return Ok(None) };
        let mut vaults = self.keys.as_ref().filter(|_| makes_tokens(filter)).map(|keys| keys.vaults(tenant, ""));
        // In the shared scope, as metadata is.
        let body = serde_json::json!({ "metadata": { "user_id": id } }).to_string();
        let Some(masked) = mask(filter, body.as_bytes(), vaults.as_mut())?.bytes else { return Ok(None) };
        if filter.rules().style == Style::Tag {
            let plain = || Sha256::digest(id.as_bytes()).into();
            let hash: [u8; 32] =
                self.keys.as_ref().map_or_else(plain, |keys| keys.shared(tenant).digest(id.as_bytes()));
            return Ok(Some(hash.iter().fold("user-".to_owned(), |text, byte| text + &format!("{byte:02x}"))));
        }
        let masked: serde_json::Value = serde_json::from_slice(&masked).map_err(|_| Refusal::Failed)?;
        masked["metadata"]["user_id"].as_str().map(|id| Some(id.to_owned())).ok_or(Refusal::Failed)
    }

    /// The same for whoever looks for an end user: of an id that may not come in nothing was kept but, before
    /// that was so, the id as it is.
    pub(crate) fn end_user_sought(&self, tenant: &str, id: &str) -> Result<Option<String>, Refusal> {
        match self.end_user(tenant, id) {
            Err(Refusal::Blocked(_)) => Ok(None),
            known => known,
        }
    }
}

fn count(house: &House, tenant: &str, filter: &Filter, report: &Report) {
    for kind in Kind::ALL {
        let (found, masked) = (report.found[kind.index()], report.masked[kind.index()]);
        house.metrics.redacted(tenant, kind.name(), "mask", masked);
        house.metrics.redacted(tenant, kind.name(), "report", found.saturating_sub(masked));
    }
    let action = if filter.rules().is_strict() { "pass" } else { "report" };
    house.metrics.unscannable(tenant, action, report.unscannable);
}

fn count_refused(house: &House, tenant: &str, refusal: &Refusal) {
    match refusal {
        Refusal::Blocked(places) => {
            for (kind, _) in places {
                house.metrics.redacted(tenant, kind.name(), "block", 1);
            }
        }
        Refusal::Unscannable(places) => house.metrics.unscannable(tenant, "block", places.len() as u32),
        _ => house.metrics.redaction_failed(tenant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_redact::rules::{Policy, Rules};

    #[test]
    fn a_panic_in_the_filter_is_a_refusal_and_the_next_body_is_searched_again() {
        assert!(matches!(guarded(|_| panic!("as a bug would")), Err(Refusal::Failed)));
        let filter = Filter::new(Rules::default()).unwrap();
        assert!(mask(&filter, br#"{"messages":[]}"#, None).is_ok());
    }
    #[test]
    fn an_end_user_whom_the_filter_refuses_is_never_known_by_the_id_as_it_is() {
        let mut rules = Rules::default();
        rules.policies[Kind::Email.index()] = Policy::Block;
        let redaction = Redaction::off().for_all(Some(Arc::new(Filter::new(rules).unwrap())));
        let known = |id| redaction.end_user("team", id);
        assert!(matches!(known("li.wei@example.org"), Err(Refusal::Blocked(_))));
        assert!(matches!(known("user-7"), Ok(None)));
        assert!(matches!(redaction.end_user_sought("team", "li.wei@example.org"), Ok(None)), "kept in no other form");
    }
}
