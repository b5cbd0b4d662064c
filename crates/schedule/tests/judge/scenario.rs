//! What a scenario is made of, and what is asked of it.

use crate::load::Crowd;
use crate::upstream::OrgPlan;

/// One of the upstream's three limiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    Requests = 0,
    Input = 1,
    Output = 2,
}

/// How long a message takes to the upstream or back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// One in so many takes up to `spike` seconds.
    pub(crate) spikes: f64,
    pub(crate) spike: f64,
}

/// Something that happens to the upstream during a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// All limits of an organisation, times this; whether its headers say so.
    Scale {
        org: usize,
        factor: f64,
        told: bool,
    },
    /// Somebody else takes this share of an organisation's limits.
    Foreign {
        org: usize,
        share: f64,
    },
    Revoke {
        org: usize,
        key: usize,
        revoked: bool,
    },
    SpendCap {
        org: usize,
        reached: bool,
    },
    /// The chance that a request meets a 529.
    Overloaded {
        org: usize,
        chance: f64,
    },
    /// The chance that it meets a 500.
    Broken {
        org: usize,
        chance: f64,
    },
}

/// What has to hold of every seed. That no upstream 429 is shown to a client, that no lease is left
/// over and that nobody starts after its deadline always has to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Targets {
    /// The least use of the binding limit while a backlog exists, in percent.
    pub(crate) use_min: Option<f64>,
    /// The most upstream 429s.
    pub(crate) throttled_max: Option<u64>,
    /// The most upstream 429s per 100 requests.
    pub(crate) per_100_max: Option<f64>,
    /// The most upstream 429s per 100 requests in the minute after the first change.
    pub(crate) after_change_max: Option<f64>,
    pub(crate) jain_min: Option<f64>,
    /// The least share of offered requests that are answered, in percent.
    pub(crate) answered_min: Option<f64>,
    /// The longest wait of 99 of 100 requests of tenants other than 0, which floods.
    pub(crate) others_p99_max: Option<f64>,
    /// The most times a shared beginning is paid for beyond the first, per hundred requests.
    pub(crate) paid_again_max: Option<f64>,
    /// The least share of later turns of conversations that found their cache, in percent.
    pub(crate) warm_turns_min: Option<f64>,
}

/// Others' ways, to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Baselines {
    No,
    Yes,
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) orgs: Vec<OrgPlan>,
    /// Whether the scheduler is configured with the limits, or has to learn them.
    pub(crate) told: bool,
    /// By tenant.
    pub(crate) weights: Vec<f64>,
    pub(crate) crowds: Vec<Crowd>,
    pub(crate) network: Network,
    pub(crate) script: Vec<(f64, Change)>,
    pub(crate) seconds: f64,
    /// What limits each class.
    pub(crate) binding: Vec<Binding>,
    /// Seconds of a window in which fairness is looked at.
    pub(crate) window: f64,
    pub(crate) targets: Targets,
    pub(crate) baselines: Baselines,
}
