//! The rules of admission, charging and settling, with numbers one can follow in one's head.

use super::*;
use crate::cache::InputUse;
use crate::envelope::Refusal;
use proptest::prelude::*;
use serde_json::json;

const LIMITS: Limits =
    Limits { requests: 3, input_tokens: 6_000, output_tokens: 1_200, burst: Duration::from_secs(60) };

fn at(s: u64) -> Moment {
    Moment::from_nanos(s * 1_000_000_000)
}

fn holder() -> Holder {
    Holder::new(("acme".to_owned(), "opus-5"), Some(LIMITS))
}

/// A quota under these rules.
fn under(rules: QuotaRules) -> Quota {
    Quota::new(&Scenario { quota: rules, ..Scenario::calm() }, 1_795_379_640)
}

fn quota() -> Quota {
    under(QuotaRules::default())
}

fn ask(input: u64) -> Ask {
    Ask { input: InputUse { uncached: input, ..InputUse::default() }, estimate: input, max_tokens: 100 }
}

fn admit(quota: &mut Quota, input: u64, now: Moment) -> Result<Lease, OverLimit> {
    quota.admit(&holder(), ask(input), now)
}

/// What a limiter of `acme` holds, whole tokens.
fn level(quota: &mut Quota, limiter: Limiter, now: Moment) -> i64 {
    let pool = quota.pools.get_mut(&("acme".to_owned(), None, "opus-5")).unwrap();
    pool.balances(now).into_iter().find(|(l, _, _)| *l == limiter).unwrap().2.level
}

#[track_caller]
fn refused(over: Result<Lease, OverLimit>, label: &str, retry_after_s: Option<u64>) -> Refusal {
    let over = over.map(drop).unwrap_err();
    assert_eq!((over.label, over.refusal.retry_after_s), (label, retry_after_s));
    over.refusal
}

const ENDED: Settlement = Settlement { cancelled: false, whole: 0 };
const LEFT: Settlement = Settlement { cancelled: true, whole: 700 };

#[test]
fn the_fourth_of_three_requests_a_minute_waits_twenty_seconds() {
    let mut quota = quota();
    for _ in 0..3 {
        admit(&mut quota, 10, at(0)).unwrap();
    }
    let refusal = refused(admit(&mut quota, 10, at(0)), "429-requests", Some(20));
    assert!(refusal.message.contains("your organization's rate limit of 3 requests per minute (org: acme)"));
    assert!(admit(&mut quota, 10, at(19)).is_err());
    admit(&mut quota, 10, at(20)).unwrap();
}

#[test]
fn input_is_charged_at_once_and_output_as_it_is_produced() {
    let mut quota = quota();
    let mut lease = admit(&mut quota, 5_000, at(0)).unwrap();
    refused(admit(&mut quota, 1_500, at(0)), "429-input-tokens", Some(5));
    assert_eq!(quota.produced(&mut lease, 1_210, at(0)), None, "it goes on, into debt");
    refused(admit(&mut quota, 1, at(0)), "429-output-tokens", Some(1));
    admit(&mut quota, 1, at(1)).unwrap();
}

#[test]
fn a_request_that_can_never_fit_is_told_to_come_back_in_a_minute() {
    refused(admit(&mut quota(), 6_001, at(0)), "429-input-tokens", Some(60));
}

#[test]
fn or_it_passes_when_the_bucket_is_full_and_leaves_a_debt() {
    let mut quota = under(QuotaRules { oversize: Oversize::WhenFull, ..QuotaRules::default() });
    admit(&mut quota, 1_000, at(0)).unwrap();
    refused(admit(&mut quota, 9_000, at(0)), "429-input-tokens", Some(10));
    admit(&mut quota, 9_000, at(10)).unwrap();
    assert_eq!(level(&mut quota, Limiter::Input, at(10)), -3_000);
    refused(admit(&mut quota, 100, at(10)), "429-input-tokens", Some(31));
}

#[test]
fn twelve_headers_round_tokens_and_name_the_time_of_full_replenishment() {
    let mut quota = quota();
    admit(&mut quota, 1_600, at(60)).unwrap();
    let headers = quota.headers(&holder(), Prng::new(0), at(60));
    let header = |name: &str| headers.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v.as_str());
    assert_eq!(headers.len(), 12);
    assert_eq!(header("anthropic-ratelimit-input-tokens-remaining"), "4000");
    assert_eq!(header("anthropic-ratelimit-input-tokens-reset"), "2026-11-22T20:35:16Z");
    assert_eq!(header("anthropic-ratelimit-requests-remaining"), "2");
    assert_eq!(header("anthropic-ratelimit-requests-reset"), "2026-11-22T20:35:20Z");
    assert_eq!(header("anthropic-ratelimit-tokens-limit"), "7200");
    assert_eq!(header("anthropic-ratelimit-output-tokens-remaining"), "1000");
}

#[test]
fn an_unlimited_domain_is_not_metered_and_says_nothing() {
    let mut quota = quota();
    let free = Holder::new(("acme".to_owned(), "opus-5"), None);
    for _ in 0..10_000 {
        quota.admit(&free, ask(1 << 40), at(0)).unwrap();
    }
    assert!(quota.headers(&free, Prng::new(0), at(0)).is_empty());
}

#[test]
fn more_domains_than_fit_are_the_others() {
    let mut quota = quota();
    for n in 0..DOMAINS_MAX + 50 {
        let domain = quota.domain(&format!("org{n:06}"), "opus-5");
        let _ = quota.admit(&Holder::new(domain, Some(LIMITS)), ask(1), at(0));
    }
    assert_eq!(quota.pools.len(), DOMAINS_MAX + 1);
    assert_eq!(quota.domain("org000001", "opus-5").0, "org000001");
    assert_eq!(quota.domain("new", "opus-5").0, "others");
}

#[test]
fn counting_tokens_has_requests_of_its_own() {
    let mut quota = quota();
    quota.count("acme", Some(2), at(0)).unwrap();
    quota.count("acme", Some(2), at(0)).unwrap();
    let over = quota.count("acme", Some(2), at(0)).unwrap_err();
    assert_eq!((over.label, over.refusal.retry_after_s), ("429-count-tokens", Some(30)));
    quota.count("acme", None, at(0)).unwrap();
    admit(&mut quota, 1, at(0)).unwrap();
}

#[test]
fn a_wrong_estimate_is_corrected_when_the_answer_begins() {
    for (estimate, before, after) in [(1_300, 4_700, 5_000), (700, 5_300, 5_000)] {
        let mut quota = quota();
        let mut lease = quota.admit(&holder(), Ask { estimate, ..ask(1_000) }, at(0)).unwrap();
        assert_eq!(level(&mut quota, Limiter::Input, at(0)), before);
        quota.begun(&mut lease, at(0));
        quota.begun(&mut lease, at(0));
        assert_eq!(level(&mut quota, Limiter::Input, at(0)), after);
    }
}

#[test]
fn what_the_cache_held_is_not_input() {
    let mut quota = quota();
    let input = InputUse { uncached: 100, read: 4_000, created_5m: 200, created_1h: 50 };
    let whole = Ask { input, estimate: input.total(), max_tokens: 1 };
    let mut lease = quota.admit(&holder(), whole, at(0)).unwrap();
    assert_eq!(level(&mut quota, Limiter::Input, at(0)), 6_000 - 4_350);
    quota.begun(&mut lease, at(0));
    assert_eq!(level(&mut quota, Limiter::Input, at(0)), 6_000 - 350);
}

#[test]
fn output_may_be_reserved_ahead_and_the_rest_given_back() {
    let mut quota = under(QuotaRules { output: OutputCharge::Reserve, ..QuotaRules::default() });
    let mut lease = quota.admit(&holder(), Ask { max_tokens: 1_000, ..ask(10) }, at(0)).unwrap();
    assert_eq!(level(&mut quota, Limiter::Output, at(0)), 200);
    let over = quota.admit(&holder(), Ask { max_tokens: 300, ..ask(10) }, at(0));
    refused(over, "429-output-tokens", Some(5));
    quota.produced(&mut lease, 400, at(0));
    assert_eq!(level(&mut quota, Limiter::Output, at(0)), 200, "it was paid for");
    quota.settle(lease, ENDED, at(0));
    assert_eq!(level(&mut quota, Limiter::Output, at(0)), 800);
    let over = quota.admit(&holder(), Ask { max_tokens: 1_201, ..ask(10) }, at(0));
    refused(over, "429-output-tokens", Some(60));
}

#[test]
fn a_stream_may_end_when_no_output_is_left() {
    let mut quota = under(QuotaRules { output_exhausted: OutputExhausted::Error, ..QuotaRules::default() });
    let mut lease = admit(&mut quota, 10, at(0)).unwrap();
    assert_eq!(quota.produced(&mut lease, 1_199, at(0)), None);
    let message = quota.produced(&mut lease, 1, at(0)).unwrap();
    assert!(message.contains("1200 output tokens per minute"), "{message}");
}

#[test]
fn who_leaves_pays_for_what_was_produced_or_for_all_or_for_nothing() {
    let check = |charge_cancelled, requests, input, output| {
        let mut quota = under(QuotaRules { charge_cancelled, ..QuotaRules::default() });
        let mut lease = admit(&mut quota, 1_000, at(0)).unwrap();
        quota.begun(&mut lease, at(0));
        quota.produced(&mut lease, 300, at(0));
        quota.settle(lease, LEFT, at(0));
        let levels = Limiter::ALL.map(|limiter| level(&mut quota, limiter, at(0)));
        assert_eq!(levels, [requests, input, output], "{charge_cancelled:?}");
        quota.spending.by_organisation().map(|(_, spent)| spent).sum::<u64>()
    };
    assert_eq!(check(CancelCharge::Produced, 2, 5_000, 900), 1_000 * 5_000 + 300 * 25_000);
    assert_eq!(check(CancelCharge::Whole, 2, 5_000, 500), 1_000 * 5_000 + 700 * 25_000);
    assert_eq!(check(CancelCharge::Nothing, 3, 6_000, 1_200), 0);
}

#[test]
fn refused_requests_take_one_only_where_the_switch_says_so_and_one_is_there() {
    for (charge_refused, left) in [(false, 3), (true, 1)] {
        let mut quota = under(QuotaRules { charge_refused, ..QuotaRules::default() });
        refused(admit(&mut quota, 9_000, at(0)), "429-input-tokens", Some(60));
        refused(admit(&mut quota, 9_000, at(0)), "429-input-tokens", Some(60));
        assert_eq!(level(&mut quota, Limiter::Requests, at(0)), left);
    }
    let mut quota = under(QuotaRules { charge_refused: true, ..QuotaRules::default() });
    (0..5).for_each(|_| drop(admit(&mut quota, 9_000, at(0))));
    assert_eq!(level(&mut quota, Limiter::Requests, at(0)), 0, "never into debt");
}

#[test]
fn a_workspace_is_limited_besides_its_organisation_and_the_message_says_whose_limit_it_was() {
    let mut quota = quota();
    let limits = PartialLimits { input_tokens: Some(600), ..PartialLimits::default() };
    let lab = holder().within("lab".to_owned(), limits);
    quota.admit(&lab, ask(500), at(0)).unwrap();
    let refusal = refused(quota.admit(&lab, ask(200), at(0)), "429-workspace-input-tokens", Some(10));
    assert!(
        refusal
            .message
            .contains("your workspace's rate limit of 600 input tokens per minute (workspace: lab, org: acme)")
    );
    admit(&mut quota, 5_500, at(0)).unwrap();
    refused(quota.admit(&lab, ask(50), at(0)), "429-input-tokens", Some(1));
    assert_eq!(level(&mut quota, Limiter::Requests, at(0)), 1, "a workspace's requests are its organisation's too");
}

#[test]
fn the_ramp_limit_has_a_code_and_a_time_to_come_back() {
    let rule = RampRule { floor_requests: 12, ..RampRule::default() };
    let mut quota = under(QuotaRules { ramp: Some(rule), ..QuotaRules::default() });
    admit(&mut quota, 1, at(0)).unwrap();
    admit(&mut quota, 1, at(4)).unwrap();
    let refusal = refused(admit(&mut quota, 1, at(4)), "429-ramp", Some(6));
    assert_eq!(refusal.code, Some("ramp_limit_exceeded"));
    admit(&mut quota, 1, at(10)).unwrap();
}

#[test]
fn so_many_requests_of_an_organisation_at_once_and_no_more() {
    let mut quota = under(QuotaRules { connections: Some(2), ..QuotaRules::default() });
    let connect = |quota: &mut Quota, name: &str| quota.connect(&holder(), name, at(0)).map_err(|over| over.refusal);
    connect(&mut quota, "acme").unwrap();
    connect(&mut quota, "acme").unwrap();
    let refusal = connect(&mut quota, "acme").unwrap_err();
    assert!(refusal.message.starts_with("Number of concurrent connections has exceeded your rate limit"));
    assert_eq!((refusal.status, refusal.retry_after_s), (429, Some(1)));
    connect(&mut quota, "blue").unwrap();
    quota.disconnect("acme");
    connect(&mut quota, "acme").unwrap();
    for name in ["acme", "acme", "blue"] {
        quota.disconnect(name);
    }
    assert!(quota.at_once.is_empty());
}

#[test]
fn a_changed_limit_and_an_unseen_consumer_are_told_by_headers_and_by_the_account() {
    let text = "
        [[change]]
        organisation = \"acme\"
        at = \"60 s\"
        factor = 0.5
        [[consumer]]
        organisation = \"acme\"
        from = \"60 s\"
        until = \"120 s\"
        percent = 50
        every = \"10 s\"";
    let mut quota = Quota::new(&Scenario::parse(text).unwrap(), 0);
    let mut lease = admit(&mut quota, 1, at(0)).unwrap();
    quota.produced(&mut lease, 1_200, at(59));
    let header = |quota: &mut Quota, name: &str, s| {
        let headers = quota.headers(&holder(), Prng::new(0), at(s));
        headers.iter().find(|(n, _)| *n == name).unwrap().1.clone()
    };
    assert_eq!(header(&mut quota, "anthropic-ratelimit-output-tokens-limit", 59), "1200");
    assert_eq!(header(&mut quota, "anthropic-ratelimit-output-tokens-limit", 60), "600");
    // A second of refill, then half the refill for half of the minute.
    assert_eq!(level(&mut quota, Limiter::Output, at(120)), 20 + 300);
    quota.reopen(at(120));
    assert_eq!(level(&mut quota, Limiter::Output, at(140)), 520);
    let report = quota.report(at(140));
    assert_eq!(report["span_ms"], 20_000);
    assert_eq!(report["limits"][0]["organisation"], "acme");
    assert_eq!(
        report["limits"][0]["output_tokens"],
        json!({"limit": 600, "refilled": 200, "foreign": 0, "allowed": 200, "used": 0, "overflowed": 0,
                           "level_then": 320, "level_now": 520})
    );
}

#[test]
fn a_pool_first_seen_late_has_existed_all_the_time() {
    let text = "[[consumer]]\nfrom = \"0 s\"\npercent = 10\nevery = \"1 s\"";
    let mut quota = Quota::new(&Scenario::parse(text).unwrap(), 0);
    quota.reopen(at(100));
    admit(&mut quota, 1, at(160)).unwrap();
    let report = quota.report(at(160));
    let input = &report["limits"][0]["input_tokens"];
    assert_eq!((&input["refilled"], &input["foreign"], &input["allowed"]), (&json!(6_000), &json!(600), &json!(5_400)));
}

proptest! {
    /// "Earlier retries will fail": a second earlier the same limit refuses again, and then it does
    /// not.
    #[test]
    fn retry_after_is_when_the_limit_lets_the_request_pass_and_not_a_second_earlier(
        history in proptest::collection::vec((0u64..4_000, 1u64..3_000, 0u64..400), 1..40), burst in 1u64..60, input in 1u64..3_000,
    ) {
        let limits = Limits { burst: Duration::from_secs(burst), ..LIMITS };
        let holder = Holder::new(("acme".to_owned(), "opus-5"), Some(limits));
        let (mut quota, mut now) = (quota(), Moment::ZERO);
        for (ms, input, tokens) in history {
            now = now + Duration::from_millis(ms);
            if let Ok(mut lease) = quota.admit(&holder, ask(input), now) {
                quota.produced(&mut lease, tokens, now);
            }
        }
        let Err(over) = quota.admit(&holder, ask(input), now) else { return Ok(()) };
        let wait = Duration::from_secs(over.refusal.retry_after_s.unwrap());
        let again = |wait: Duration| quota.clone().admit(&holder, ask(input), now + wait).map(drop).map_err(|over| over.label);
        if input <= 100 * burst {
            prop_assert_ne!(again(wait), Err(over.label));
        }
        if let Some(earlier) = wait.checked_sub(Duration::from_secs(1)) {
            prop_assert_eq!(again(earlier), Err(over.label));
        }
    }

    /// Whatever is asked, a bucket that admits only what fits is never left with more debt than the
    /// output of those it admitted, and the account of each limiter adds up.
    #[test]
    fn accounts_add_up_whatever_happens(
        steps in proptest::collection::vec((0u64..8, 0u64..3_000, 0u64..900, 0u8..4), 1..60),
        reserve in any::<bool>(), cancel in 0u8..3, refused in any::<bool>(),
    ) {
        let mut quota = under(QuotaRules {
            output: if reserve { OutputCharge::Reserve } else { OutputCharge::Realtime },
            charge_cancelled: [CancelCharge::Produced, CancelCharge::Whole, CancelCharge::Nothing][cancel as usize],
            charge_refused: refused,
            ..QuotaRules::default()
        });
        let (mut open, mut now): (Vec<Lease>, u64) = (Vec::new(), 0);
        let (mut output, mut admitted) = (0i64, 0i64);
        for (s, input, tokens, kind) in steps {
            now += s;
            let estimate = input * (50 + tokens % 100) / 100;
            match (kind, open.pop()) {
                (0 | 1, last) => {
                    open.extend(last);
                    if let Ok(lease) = quota.admit(&holder(), Ask { estimate, ..ask(input) }, at(now)) {
                        admitted += 1;
                        open.push(lease);
                    }
                }
                (2, Some(mut lease)) => {
                    quota.begun(&mut lease, at(now));
                    let tokens = tokens.min(100 - lease.produced.min(100));
                    output += tokens as i64;
                    quota.produced(&mut lease, tokens, at(now));
                    open.push(lease);
                }
                (_, Some(lease)) => quota.settle(lease, ENDED, at(now)),
                _ => {}
            }
        }
        for mut lease in open.drain(..) {
            quota.begun(&mut lease, at(now));
            quota.settle(lease, ENDED, at(now));
        }
        let Some(pool) = quota.pools.get_mut(&("acme".to_owned(), None, "opus-5")) else { return Ok(()) };
        for (limiter, _, balance) in pool.balances(at(now)) {
            let sum = balance.opened_with + balance.refilled - balance.overflowed - balance.foreign - balance.used;
            prop_assert!((balance.level - sum).abs() <= 4, "{limiter:?} {balance:?}: each is rounded down by itself");
            match limiter {
                Limiter::Output => prop_assert_eq!(balance.used, output, "what was produced, in the end"),
                Limiter::Requests if !refused => prop_assert_eq!(balance.used, admitted),
                _ => {}
            }
        }
    }
}
