//! Who asks for what, and what he was given: the words in which quota is spoken of.

use super::limits::{Limits, PartialLimits};
use crate::cache::InputUse;

/// A domain: organisation and model class.
pub(crate) type DomainKey = (String, &'static str);

/// A holder of limits: organisation, its workspace or none, and the model class.
pub(super) type PoolKey = (String, Option<String>, &'static str);

/// Whose limits a request meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) domain: DomainKey,
    /// The organisation's pool, and its limits; `None` where nothing is metered.
    pub(super) own: PoolKey,
    pub(super) limits: Option<Limits>,
    /// The workspace's pool, if the caller's key belongs to one, and its limits.
    pub(super) inner: Option<PoolKey>,
    pub(super) inner_limits: PartialLimits,
}

impl Holder {
    pub(crate) fn new(domain: DomainKey, limits: Option<Limits>) -> Self {
        let own = (domain.0.clone(), None, domain.1);
        Holder { domain, own, limits, inner: None, inner_limits: PartialLimits::default() }
    }

    /// The same within a workspace.
    pub(crate) fn within(mut self, workspace: String, limits: PartialLimits) -> Self {
        self.inner = Some((self.domain.0.clone(), Some(workspace), self.domain.1));
        self.inner_limits = limits;
        self
    }

    pub(super) fn organisation(&self) -> &str {
        &self.domain.0
    }

    pub(crate) fn workspace(&self) -> Option<&str> {
        self.inner.as_ref()?.1.as_deref()
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Its input as it turns out to be.
    pub(crate) input: InputUse,
    /// Its input as it is believed to be until then.
    pub(crate) estimate: u64,
    pub(crate) max_tokens: u64,
}

/// A request that was admitted.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) holder: Holder,
    pub(super) input: InputUse,
    /// Input tokens the buckets were charged.
    pub(super) charged_input: u64,
    /// Output tokens the buckets were charged ahead.
    pub(super) reserved: u64,
    /// Output tokens produced.
    pub(super) produced: u64,
    pub(super) begun: bool,
    /// Nanodollars booked.
    pub(super) cost: u64,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settlement {
    /// Whether the client left first.
    pub(crate) cancelled: bool,
    /// Output tokens of the whole answer.
    pub(crate) whole: u64,
}
