//! Which organisation a key belongs to.
//!
//! Where the scenario lists organisations, only their keys are good. Where it lists none, every key
//! `sk-ant-...` is, and its organisation is what stands between that and the last `-`: the keys
//! `sk-ant-acme-1` and `sk-ant-acme-2` are of one organisation, `acme`; a key without a second part
//! belongs to `default`. With both credentials present `x-api-key` is the one that counts.

use crate::envelope::Refusal;
use crate::quota::{Limits, Tier};
use crate::scenario::Scenario;
use std::time::Duration;

/// The organisation behind a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) organisation: String,
    /// Index into the scenario's list, if it has one.
    listed: Option<usize>,
}

/// Finds the caller, or the 401 he gets.
pub(crate) fn identify(
    scenario: &Scenario,
    api_key: Option<&str>,
    authorization: Option<&str>,
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
    if !scenario.organisations.is_empty() {
        let owner = |organisation: &crate::scenario::Organisation| organisation.keys.iter().any(|known| known == key);
        let listed = scenario.organisations.iter().position(owner).ok_or_else(refused)?;
        return Ok(Caller { organisation: scenario.organisations[listed].name.clone(), listed: Some(listed) });
    }
    let rest = key.strip_prefix("sk-ant-").filter(|rest| !rest.is_empty()).ok_or_else(refused)?;
    let organisation = rest.rsplit_once('-').map_or("default", |(name, _)| name);
    Ok(Caller { organisation: organisation.to_owned(), listed: None })
}

impl Caller {
    /// The limits of this organisation in a model class; `None` where nothing is metered.
    pub(crate) fn limits(&self, scenario: &Scenario, class: &str) -> Option<Limits> {
        let organisation = self.listed.and_then(|n| scenario.organisations.get(n));
        if let Some(limits) = organisation.and_then(|o| o.limits.get(class)) {
            return Some(*limits);
        }
        let tier = organisation.and_then(|o| o.tier).unwrap_or(scenario.tier);
        let limits = tier.limits(class)?;
        Some(Limits { burst: scenario.burst.unwrap_or(limits.burst), ..limits })
    }

    /// The limits of `count_tokens`: a pool of requests only, as large as the tier's.
    pub(crate) fn count_limits(&self, scenario: &Scenario) -> Option<Limits> {
        let organisation = self.listed.and_then(|n| scenario.organisations.get(n));
        let tier: Tier = organisation.and_then(|o| o.tier).unwrap_or(scenario.tier);
        let limits = tier.limits("count")?;
        Some(Limits {
            input_tokens: u64::MAX >> 8,
            output_tokens: u64::MAX >> 8,
            burst: Duration::from_secs(60),
            ..limits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Organisation;

    fn organisation(scenario: &Scenario, api_key: Option<&str>, authorization: Option<&str>) -> Result<String, String> {
        identify(scenario, api_key, authorization)
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
        let caller = identify(&scenario, Some("k1"), None).unwrap();
        assert_eq!(caller.limits(&scenario, "opus-5").map(|l| l.requests), Some(1_000));
    }
}
