//! What is spent, in nanodollars, and the limits on it.
//!
//! The price of a request is its class's (dollars per million tokens, November 2026): input times
//! one, input read from the prompt cache a tenth, written to it 1.25 times for five minutes and
//! twice for an hour, output as it is produced. A limit holds from the moment it is reached until it
//! is lifted; requests that run go on.

use super::rules::{SpendLimit, SpendLimitKind};
use crate::cache::InputUse;
use crate::envelope::Refusal;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::{Moment, rfc3339};

/// The label of a refusal by a limit the organisation set itself, the only one that is no 429.
pub(crate) const USER_LIMIT: &str = "400-spend-limit";

/// Nanodollars for a token of input and one of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Price {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

impl Price {
    /// The price of a model class.
    pub(crate) fn of(class: &str) -> Price {
        let (input, output) = match class {
            "fable-5" | "mythos-5" => (10_000, 50_000),
            "opus-5-5" => (4_000, 20_000),
            "opus-5" | "opus-4" => (5_000, 25_000),
            "sonnet-5-5" | "sonnet-5" => (2_000, 10_000),
            "sonnet-4" => (3_000, 15_000),
            "haiku-5-5" => (100, 500),
            _ => (1_000, 5_000),
        };
        Price { input, output }
    }

    /// What the input of a request costs.
    pub(crate) fn of_input(self, used: InputUse) -> u64 {
        let hundredths = used.uncached * 100 + used.read * 10 + used.created_5m * 125 + used.created_1h * 200;
        self.input * hundredths / 100
    }
}

/// What an organisation has spent, and each of its workspaces of that.
#[derive(Clone, Debug, Default)]
struct Spent {
    total: u64,
    workspaces: BTreeMap<String, u64>,
}

/// Who has spent how much, and the limits.
#[derive(Clone, Debug)]
pub(crate) struct Spending {
    limits: Vec<SpendLimit>,
    spent: BTreeMap<String, Spent>,
}

impl Spending {
    pub(crate) fn new(limits: Vec<SpendLimit>) -> Self {
        Spending { limits, spent: BTreeMap::new() }
    }

    /// Books on the organisation and on the workspace; a negative amount is a refund.
    pub(crate) fn book(&mut self, organisation: &str, workspace: Option<&str>, nanodollars: i64) {
        let add = |sum: &mut u64| *sum = sum.saturating_add_signed(nanodollars);
        change(&mut self.spent, organisation, |spent| {
            add(&mut spent.total);
            if let Some(name) = workspace {
                change(&mut spent.workspaces, name, add);
            }
        });
    }

    /// What an organisation or one of its workspaces has spent.
    fn spent(&self, organisation: &str, workspace: Option<&str>) -> u64 {
        let Some(spent) = self.spent.get(organisation) else { return 0 };
        workspace.map_or(spent.total, |name| spent.workspaces.get(name).copied().unwrap_or(0))
    }

    /// Everything spent, by organisation.
    pub(crate) fn by_organisation(&self) -> impl Iterator<Item = (&str, u64)> {
        self.spent.iter().map(|(name, spent)| (name.as_str(), spent.total))
    }

    /// The limit that holds against this caller now, if one does.
    fn reached(&self, organisation: &str, workspace: Option<&str>, now: Moment) -> Option<&SpendLimit> {
        self.limits.iter().find(|limit| {
            let about = limit.organisation.as_deref().is_none_or(|name| name == organisation)
                && limit.workspace.as_deref().is_none_or(|name| Some(name) == workspace);
            let holds = limit.lifted.is_none_or(|lifted| now.since(Moment::ZERO) < lifted);
            about && holds && self.spent(organisation, limit.workspace.as_deref()) >= limit.nanodollars
        })
    }

    /// The refusal of a caller whose limit is reached; `epoch_s` is the wall time at moment zero.
    pub(crate) fn refusal(
        &self,
        organisation: &str,
        workspace: Option<&str>,
        now: Moment,
        epoch_s: u64,
    ) -> Option<(&'static str, Refusal)> {
        let limit = self.reached(organisation, workspace, now)?;
        let again = access_again(limit.lifted, epoch_s);
        if limit.kind == SpendLimitKind::User {
            let whose = if limit.workspace.is_some() { "workspace API" } else { "API" };
            let message =
                format!("You have reached your specified {whose} usage limits. You will regain access on {again}.");
            return Some((USER_LIMIT, Refusal::invalid(message)));
        }
        let message = format!(
            "Your organization has reached its monthly spend limit (org: {organisation}). Access will be restored on {again}."
        );
        Some(("429-spend-limit", Refusal { code: Some("enforced_spend_limit_reached"), ..Refusal::new(429, message) }))
    }
}

/// Changes the entry of this name, made if need be; a key is only cloned then, as this is done for
/// every event of a stream.
fn change<T: Default>(map: &mut BTreeMap<String, T>, name: &str, change: impl FnOnce(&mut T)) {
    if let Some(there) = map.get_mut(name) {
        return change(there);
    }
    change(map.entry(name.to_owned()).or_default());
}

/// When there is access again: the time a limit is lifted, or the first of the next month.
fn access_again(lifted: Option<Duration>, epoch_s: u64) -> String {
    if let Some(lifted) = lifted {
        let text = rfc3339(epoch_s + lifted.as_secs());
        return format!("{} at {} UTC", &text[..10], &text[11..16]);
    }
    let today = rfc3339(epoch_s);
    let number = |text: &str| text.parse::<u64>().unwrap_or(1);
    let (year, month) = (number(&today[..4]), number(&today[5..7]));
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    format!("{year:04}-{month:02}-01 at 00:00 UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOLLAR: u64 = 1_000_000_000;

    fn at(s: u64) -> Moment {
        Moment::from_nanos(s * 1_000_000_000)
    }

    fn limit(organisation: Option<&str>, workspace: Option<&str>, kind: SpendLimitKind) -> SpendLimit {
        SpendLimit {
            organisation: organisation.map(str::to_owned),
            workspace: workspace.map(str::to_owned),
            nanodollars: DOLLAR,
            kind,
            lifted: Some(Duration::from_secs(60)),
        }
    }

    #[test]
    fn prices_are_per_million_tokens_and_the_cache_has_its_own() {
        let price = Price::of("sonnet-5-5");
        let million = InputUse { uncached: 1_000_000, ..InputUse::default() };
        assert_eq!(price.of_input(million), 2 * DOLLAR);
        assert_eq!(1_000_000 * price.output, 10 * DOLLAR);
        assert_eq!(Price::of("haiku-5-5").of_input(million), DOLLAR / 10);
        let cached = InputUse { uncached: 0, read: 1_000, created_5m: 1_000, created_1h: 1_000 };
        assert_eq!(price.of_input(cached), 200_000 + 2_500_000 + 4_000_000);
    }

    #[test]
    fn an_enforced_limit_refuses_without_a_time_to_come_back_until_it_is_lifted() {
        let mut spending = Spending::new(vec![limit(Some("acme"), None, SpendLimitKind::Enforced)]);
        let refusal = |spending: &Spending, org: &str, s| spending.refusal(org, None, at(s), 1_795_379_640);
        spending.book("acme", None, DOLLAR as i64 - 1);
        spending.book("other", None, 5 * DOLLAR as i64);
        assert_eq!(refusal(&spending, "acme", 0), None);
        spending.book("acme", Some("lab"), 1);
        let (label, refused) = refusal(&spending, "acme", 59).unwrap();
        assert_eq!((label, refused.status, refused.retry_after_s), ("429-spend-limit", 429, None));
        assert_eq!(refused.code, Some("enforced_spend_limit_reached"));
        assert!(refused.message.ends_with("on 2026-11-22 at 20:35 UTC."), "{}", refused.message);
        assert_eq!((refusal(&spending, "other", 59), refusal(&spending, "acme", 60)), (None, None));
    }

    #[test]
    fn a_limit_of_ones_own_is_a_400_and_may_be_a_workspaces() {
        let mut spending = Spending::new(vec![limit(None, Some("lab"), SpendLimitKind::User)]);
        spending.book("acme", Some("lab"), DOLLAR as i64);
        let (label, refused) = spending.refusal("acme", Some("lab"), at(0), 0).unwrap();
        assert_eq!((label, refused.status, refused.kind), ("400-spend-limit", 400, "invalid_request_error"));
        assert!(refused.message.starts_with("You have reached your specified workspace API usage limits."));
        assert_eq!(spending.refusal("acme", None, at(0), 0), None);
    }

    #[test]
    fn what_is_not_lifted_ends_with_the_month() {
        assert_eq!(access_again(None, 1_795_379_640), "2026-12-01 at 00:00 UTC");
        assert_eq!(access_again(None, 1_798_000_000), "2027-01-01 at 00:00 UTC");
    }
}
