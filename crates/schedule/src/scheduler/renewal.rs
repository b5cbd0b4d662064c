//! What changes while requests wait and are under way: organisations with their keys, tenants' rules,
//! the rules of the queue.
//!
//! Numbers are never given to another: an organisation or a key that is gone keeps its own, without
//! being chosen. So whoever holds a lease settles it where it was taken, and what was learned of a
//! domain holds on when its keys change. Who waits is looked at again, with what is there now.

use super::{Lane, Scheduler};
use crate::ask::{OrgId, OrgSpec, TenantId, TenantRules};
use crate::rules::{JITTER_MAX, Rules};
use tidegate_base::Moment;

impl Scheduler {
    /// The organisations as they are now, by number. One that is gone has all its keys closed; none is
    /// left out.
    pub fn set_organisations(&mut self, now: Moment, orgs: &[OrgSpec]) {
        for (spec, n) in orgs.iter().zip(0..) {
            let org = self.shared.orgs.entry(OrgId(n)).or_default();
            org.lanes.resize(spec.keys.len().max(org.lanes.len()), Lane::default());
            org.spec = spec.clone();
        }
        for ((_, private), number) in &self.numbers {
            if private.is_none() {
                let class = &mut self.classes[*number];
                (0..orgs.len()).for_each(|n| class.set_org(OrgId(n as u32), &self.shared, now));
                class.touch(now);
            }
        }
    }

    /// What a tenant may use from now on. What it has under way still counts; a limit that changed
    /// begins with a whole minute's worth.
    pub fn set_tenant(&mut self, now: Moment, tenant: TenantId, rules: &TenantRules) {
        match self.shared.tenants.get_mut(&tenant) {
            Some(known) => known.set_rules(rules, now),
            None => self.tenant(now, tenant, rules),
        }
        self.classes.iter_mut().for_each(|class| class.touch(now));
    }

    /// The rules from now on.
    pub fn set_rules(&mut self, now: Moment, rules: Rules) {
        self.shared.rules = Rules { jitter: rules.jitter.min(JITTER_MAX), ..rules };
        self.classes.iter_mut().for_each(|class| class.touch(now));
    }
}
