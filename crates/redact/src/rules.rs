//! What is done with what is found: a policy per kind, and one for what cannot be looked into.

use crate::detect::Looking;
use crate::kind::{KINDS, Kind};

/// What is done with a kind of data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// It is not looked for.
    #[default]
    Off,
    /// It is counted and passes.
    Report,
    /// It is replaced.
    Mask,
    /// The request is refused.
    Block,
}

/// What stands in place of a masked value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// A token that is put back in the answer.
    #[default]
    Token,
    /// The kind's tag, for good.
    Tag,
}

/// What is done with what cannot be looked into: base64 media, URLs, file ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unscannable {
    /// It is counted and passes.
    Pass,
    /// The request is refused.
    #[default]
    Block,
}

/// A tenant's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What is done with each kind, by [`Kind::index`].
    pub policies: [Policy; KINDS],
    /// What stands in place of values.
    pub style: Style,
    /// What is done with what cannot be looked into, where anything is masked or blocked.
    pub unscannable: Unscannable,
    /// Private IP addresses, the operator's patterns, what is let through. Its kinds are not read:
    /// what is looked for follows from the policies.
    pub looking: Looking,
}

impl Rules {
    /// One policy for every kind but names and addresses, which are off unless named.
    pub fn all(policy: Policy) -> Rules {
        let policies = Kind::ALL.map(|kind| match kind {
            Kind::Name | Kind::Address => Policy::Off,
            _ => policy,
        });
        Rules { policies, style: Style::Token, unscannable: Unscannable::Block, looking: Looking::default() }
    }

    /// What is done with `kind`.
    pub fn policy(&self, kind: Kind) -> Policy {
        self.policies[kind.index()]
    }

    /// Whether anything is masked or blocked: then what cannot be looked into matters.
    pub fn is_strict(&self) -> bool {
        self.policies.iter().any(|policy| *policy >= Policy::Mask)
    }

    /// Whether nothing is looked for.
    pub fn is_off(&self) -> bool {
        self.policies.iter().all(|policy| *policy == Policy::Off)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Rules::all(Policy::Off)
    }
}
