//! Which organisation a key belongs to, and which of its workspaces.
//!
//! Where the scenario lists organisations, only their keys are good. Where it lists none, every key
//! `sk-ant-...` is, and its organisation is what stands between that and the last `-`: the keys
//! `sk-ant-acme-1` and `sk-ant-acme-2` are of one organisation, `acme`; a key without a second part
//! belongs to `default`. With both credentials present `x-api-key` is the one that counts. A key may
//! be revoked or expire for a while; then it is as good as unknown.

use crate::envelope::Refusal;
use crate::quota::{DomainKey, Holder, KeyTrouble, Limits, PartialLimits, Tier};
use crate::scenario::{Organisation, Scenario, Workspace};
use tidegate_base::Moment;

/// The organisation behind a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) organisation: String,
    /// The workspace, if it is not the default one.
    pub(crate) workspace: Option<String>,
    /// Index into the scenario's list, if it has one.
    listed: Option<usize>,
}

/// Finds the caller, or the 401 he gets.
pub(crate) fn identify(
    scenario: &Scenario,
    api_key: Option<&str>,
    authorization: Option<&str>,
    now: Moment,
) -> Result<Caller, Refusal> {
    let bearer = authorization.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let (key, refusal) = match (api_key, bearer) {
        (Some(key), _) => (key, "invalid x-api-key"),
        (None, Some(token)) => (token, "Invalid bearer token"),
        (None, None) => return Err(Refusal::new(401, "x-api-key header is required")),
    };
    let refused = || Refusal::new(401, refusal);
    let elapsed = now.since(Moment::ZERO);
    let out = |outage: &&crate::quota::KeyOutage| {
        outage.key == key && outage.from <= elapsed && outage.until.is_none_or(|until| elapsed < until)
    };
    match scenario.key_outages.iter().find(out).map(|outage| outage.trouble) {
        Some(KeyTrouble::Revoked) => return Err(refused()),
        Some(KeyTrouble::Expired) => return Err(Refusal::new(401, "API key has expired")),
        None => {}
    }
    if !scenario.organisations.is_empty() {
        return listed(scenario, key).ok_or_else(refused);
    }
    let rest = key.strip_prefix("sk-ant-").filter(|rest| !rest.is_empty()).ok_or_else(refused)?;
    let organisation = rest.rsplit_once('-').map_or("default", |(name, _)| name);
    Ok(Caller { organisation: organisation.to_owned(), workspace: None, listed: None })
}

fn listed(scenario: &Scenario, key: &str) -> Option<Caller> {
    let has = |keys: &[String]| keys.iter().any(|known| known == key);
    scenario.organisations.iter().enumerate().find_map(|(n, organisation)| {
        let workspace = organisation.workspaces.iter().find(|workspace| has(&workspace.keys));
        (workspace.is_some() || has(&organisation.keys)).then(|| Caller {
            organisation: organisation.name.clone(),
            workspace: workspace.map(|workspace| workspace.name.clone()),
            listed: Some(n),
        })
    })
}

impl Caller {
    fn row<'a>(&self, scenario: &'a Scenario) -> Option<&'a Organisation> {
        self.listed.and_then(|n| scenario.organisations.get(n))
    }

    fn workspace_row<'a>(&self, scenario: &'a Scenario) -> Option<&'a Workspace> {
        let name = self.workspace.as_deref()?;
        self.row(scenario)?.workspaces.iter().find(|workspace| workspace.name == name)
    }

    /// The limits of this organisation in a model class; `None` where nothing is metered.
    pub(crate) fn limits(&self, scenario: &Scenario, class: &str) -> Option<Limits> {
        scenario.limits(self.row(scenario), class)
    }

    /// Whose limits a request in this domain meets.
    pub(crate) fn holder(&self, scenario: &Scenario, domain: DomainKey) -> Holder {
        let (limits, class) = (self.limits(scenario, domain.1), domain.1);
        let holder = Holder::new(domain, limits);
        match self.workspace_row(scenario) {
            Some(row) => {
                let limits = row.limits.get(class).copied().unwrap_or(PartialLimits::default());
                holder.within(row.name.clone(), limits)
            }
            None => holder,
        }
    }

    /// The `anthropic-workspace-id`.
    pub(crate) fn workspace_id(&self) -> String {
        format!("wrkspc_{}_{}", self.organisation, self.workspace.as_deref().unwrap_or("default"))
    }

    /// Requests per minute to `count_tokens`: a pool of its own, as large as the tier's.
    pub(crate) fn count_limit(&self, scenario: &Scenario) -> Option<u64> {
        let tier: Tier = self.row(scenario).and_then(|row| row.tier).unwrap_or(scenario.tier);
        tier.limits("count").map(|limits| limits.requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::KeyOutage;
    use std::time::Duration;

    fn organisation(scenario: &Scenario, api_key: Option<&str>, authorization: Option<&str>) -> Result<String, String> {
        identify(scenario, api_key, authorization, Moment::ZERO)
            .map(|c| c.organisation)
            .map_err(|r| format!("{} {}", r.status, r.message))
    }

    #[test]
    fn without_a_list_the_key_names_its_organisation() {
        let calm = Scenario::calm();
        let check = |key, org: &str| assert_eq!(organisation(&calm, Some(key), None).as_deref(), Ok(org));
        check("sk-ant-acme-1", "acme");
        check("sk-ant-acme-2", "acme");
        check("sk-ant-blue-moon-7", "blue-moon");
        check("sk-ant-dummy", "default");
        assert_eq!(organisation(&calm, None, Some("Bearer sk-ant-acme-3")).as_deref(), Ok("acme"));
        assert_eq!(organisation(&calm, Some("sk-ant-acme-1"), Some("Bearer sk-ant-other-1")).as_deref(), Ok("acme"));
    }

    #[test]
    fn a_wrong_key_is_told_apart_from_a_missing_one() {
        let calm = Scenario::calm();
        assert_eq!(organisation(&calm, None, None).unwrap_err(), "401 x-api-key header is required");
        assert_eq!(organisation(&calm, Some("nonsense"), None).unwrap_err(), "401 invalid x-api-key");
        assert_eq!(organisation(&calm, None, Some("Bearer nonsense")).unwrap_err(), "401 Invalid bearer token");
    }

    #[test]
    fn with_a_list_only_its_keys_are_good_and_revoked_ones_are_not() {
        let acme = Organisation {
            name: "acme".to_owned(),
            keys: vec!["k1".to_owned()],
            revoked: vec!["sk-ant-acme-old".to_owned()],
            tier: Some(Tier::Start),
            ..Organisation::default()
        };
        let scenario = Scenario { organisations: vec![acme], ..Scenario::calm() };
        assert_eq!(organisation(&scenario, Some("k1"), None).as_deref(), Ok("acme"));
        assert!(organisation(&scenario, Some("sk-ant-acme-old"), None).is_err());
        let caller = identify(&scenario, Some("k1"), None, Moment::ZERO).unwrap();
        assert_eq!(caller.limits(&scenario, "opus-5").map(|l| l.requests), Some(1_000));
    }

    #[test]
    fn a_key_that_is_out_for_a_while_comes_back() {
        let outage = |trouble| KeyOutage {
            key: "sk-ant-acme-1".to_owned(),
            from: Duration::from_secs(30),
            until: Some(Duration::from_secs(50)),
            trouble,
        };
        let mut scenario = Scenario { key_outages: vec![outage(KeyTrouble::Revoked)], ..Scenario::calm() };
        let says = |scenario: &Scenario, key, s: u64| {
            let now = Moment::ZERO + Duration::from_secs(s);
            identify(scenario, Some(key), None, now).map(|_| ()).map_err(|refusal| (refusal.status, refusal.message))
        };
        let refused = |message: &str| Err((401, message.to_owned()));
        assert_eq!(says(&scenario, "sk-ant-acme-1", 29), Ok(()));
        assert_eq!(says(&scenario, "sk-ant-acme-1", 30), refused("invalid x-api-key"));
        assert_eq!(says(&scenario, "sk-ant-acme-2", 30), Ok(()), "another key of the same organisation");
        assert_eq!(says(&scenario, "sk-ant-acme-1", 50), Ok(()));
        scenario.key_outages = vec![outage(KeyTrouble::Expired)];
        assert_eq!(says(&scenario, "sk-ant-acme-1", 49), refused("API key has expired"));
    }

    #[test]
    fn a_workspaces_keys_are_its_own_and_its_limits_apply_besides_the_organisations() {
        let limits = PartialLimits { requests: Some(5), ..PartialLimits::default() };
        let lab = Workspace {
            name: "lab".to_owned(),
            keys: vec!["k2".to_owned()],
            limits: [("opus-5".to_owned(), limits)].into(),
        };
        let acme = Organisation {
            name: "acme".to_owned(),
            keys: vec!["k1".to_owned()],
            workspaces: vec![lab],
            ..Organisation::default()
        };
        let scenario = Scenario { organisations: vec![acme], ..Scenario::calm() };
        let caller = |key| identify(&scenario, Some(key), None, Moment::ZERO).unwrap();
        assert_eq!(caller("k1").workspace_id(), "wrkspc_acme_default");
        assert_eq!(caller("k2").workspace_id(), "wrkspc_acme_lab");
        let domain = || ("acme".to_owned(), "opus-5");
        assert_eq!(caller("k1").holder(&scenario, domain()).workspace(), None);
        let own = caller("k2").limits(&scenario, "opus-5");
        assert_eq!(
            caller("k2").holder(&scenario, domain()),
            Holder::new(domain(), own).within("lab".to_owned(), limits)
        );
    }
}
