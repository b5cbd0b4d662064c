//! The scenarios: the rows of the regression table first, then the held-out ones, which nobody
//! tunes on.
//!
//! Where the real API leaves something open and a scenario is not about it, the seed decides.

use crate::load::{Arrivals, Crowd, Outputs, Sharing, USUAL};
use crate::scenario::{Baselines, Binding, Change, Network, Scenario, Targets};
use crate::upstream::{Counting, OrgPlan};
use tidegate_base::Prng;
use tidegate_schedule::{Band, Limits};

/// How a scenario comes from a seed.
pub(crate) type Make = fn(u64) -> Scenario;

/// Bursts of five seconds and more: all of the limit but half a percent, and no 429.
const WIDE: Targets = Targets { use_min: Some(99.5), throttled_max: Some(0), ..NOTHING };
/// A burst of one second.
const NARROW: Targets = Targets { use_min: Some(99.0), ..WIDE };
/// The same, of a run in which it starts anew.
const AGAIN: Targets = Targets { use_min: Some(99.0), ..WIDE };
const NOTHING: Targets = Targets {
    use_min: None,
    throttled_max: None,
    per_100_max: None,
    after_change_max: None,
    jain_min: None,
    answered_min: None,
    others_p99_max: None,
    paid_again_max: None,
    warm_turns_min: None,
};

/// Where the limit is not known and a refusal is the only way to learn of it.
const LEARNED: Targets = Targets { per_100_max: Some(3.0), ..NOTHING };
/// Under the ramp rule's floor everything passes: half of the limit.
const RAMP: Targets = Targets { use_min: Some(45.0), ..LEARNED };

const NEAR: Network = Network { low: 0.01, high: 0.05, spikes: 0.0, spike: 0.0 };
const FAR: Network = Network { low: 0.01, high: 0.05, spikes: 0.05, spike: 0.2 };

fn per_minute(requests: u64, input: u64, output: u64) -> Limits {
    Limits { requests: Some(requests), input_tokens: Some(input), output_tokens: Some(output) }
}

/// The three shapes of a limit: what binds first is output, requests or input.
const BY_OUTPUT: [u64; 3] = [20_000, 20_000_000, 400_000];
const BY_REQUESTS: [u64; 3] = [1_000, 20_000_000, 8_000_000];
const BY_INPUT: [u64; 3] = [20_000, 1_000_000, 8_000_000];

fn org(seed: u64, limits: [u64; 3], burst: f64) -> OrgPlan {
    let mut dice = Prng::new(seed).fork("switches");
    OrgPlan {
        limits: vec![per_minute(limits[0], limits[1], limits[2])],
        workspaces: Vec::new(),
        keys: vec![None],
        burst,
        counting: Counting::Produced,
        sampled_at_admission: dice.chance(0.5),
        charges_errors: dice.chance(0.5),
        ramp_floor: None,
    }
}

fn closed(clients: usize) -> Crowd {
    Crowd { arrivals: Arrivals::Closed(clients), ..USUAL }
}

/// One organisation, one saturating crowd.
fn saturated(name: &'static str, org: OrgPlan, crowd: Crowd, binding: Binding, targets: Targets) -> Scenario {
    Scenario {
        name,
        orgs: vec![org],
        told: true,
        weights: vec![1.0],
        crowds: vec![crowd],
        network: NEAR,
        script: Vec::new(),
        seconds: 600.0,
        binding: vec![binding],
        window: 10.0,
        targets,
        baselines: Baselines::No,
    }
}

fn output_60(seed: u64) -> Scenario {
    let base = saturated("output, burst 60 s", org(seed, BY_OUTPUT, 60.0), closed(450), Binding::Output, WIDE);
    Scenario { baselines: Baselines::Yes, ..base }
}

fn output_60_large_max(seed: u64) -> Scenario {
    let crowd = Crowd { output_max: 64_000, ..closed(450) };
    saturated("output, burst 60 s, max_tokens 64k", org(seed, BY_OUTPUT, 60.0), crowd, Binding::Output, WIDE)
}

fn output_5(seed: u64) -> Scenario {
    let base = saturated("output, burst 5 s", org(seed, BY_OUTPUT, 5.0), closed(450), Binding::Output, WIDE);
    Scenario { baselines: Baselines::Yes, ..base }
}

fn output_1(seed: u64) -> Scenario {
    saturated("output, burst 1 s", org(seed, BY_OUTPUT, 1.0), closed(450), Binding::Output, NARROW)
}

fn requests_60(seed: u64) -> Scenario {
    let base = saturated("requests, burst 60 s", org(seed, BY_REQUESTS, 60.0), closed(600), Binding::Requests, WIDE);
    Scenario { baselines: Baselines::Yes, ..base }
}

fn requests_1(seed: u64) -> Scenario {
    let base = saturated("requests, burst 1 s", org(seed, BY_REQUESTS, 1.0), closed(600), Binding::Requests, NARROW);
    Scenario { baselines: Baselines::Yes, ..base }
}

fn requests_1_far(seed: u64) -> Scenario {
    let org = org(seed, BY_REQUESTS, 1.0);
    let base = saturated("requests, burst 1 s, jitter 200 ms", org, closed(600), Binding::Requests, NARROW);
    Scenario { network: FAR, ..base }
}

fn input_off(seed: u64) -> Scenario {
    let crowd = Crowd { estimate_off: 0.3, ..closed(500) };
    saturated("input, estimates 30 % off", org(seed, BY_INPUT, 60.0), crowd, Binding::Input, WIDE)
}

fn input_off_5(seed: u64) -> Scenario {
    let crowd = Crowd { estimate_off: 0.3, ..closed(500) };
    saturated("input, estimates 30 % off, burst 5 s", org(seed, BY_INPUT, 5.0), crowd, Binding::Input, WIDE)
}

fn reasoning(clients: usize) -> Crowd {
    Crowd { outputs: Outputs::Reasoning, output_max: 64_000, ..closed(clients) }
}

fn reasoning_60(seed: u64) -> Scenario {
    let org = org(seed, BY_OUTPUT, 60.0);
    let base = saturated("reasoning, 64k, burst 60 s", org, reasoning(220), Binding::Output, WIDE);
    Scenario { seconds: 900.0, ..base }
}

fn reasoning_5(seed: u64) -> Scenario {
    let org = org(seed, BY_OUTPUT, 5.0);
    let base = saturated("reasoning, 64k, burst 5 s", org, reasoning(220), Binding::Output, WIDE);
    Scenario { seconds: 900.0, ..base }
}

fn foreign(seed: u64, name: &'static str, burst: f64) -> Scenario {
    let base = saturated(name, org(seed, BY_OUTPUT, burst), closed(450), Binding::Output, LEARNED);
    let takes = |share| Change::Foreign { org: 0, share };
    Scenario { script: vec![(150.0, takes(0.3)), (450.0, takes(0.0))], ..base }
}

fn foreign_60(seed: u64) -> Scenario {
    foreign(seed, "a foreign consumer takes 30 %, burst 60 s", 60.0)
}

fn foreign_5(seed: u64) -> Scenario {
    foreign(seed, "a foreign consumer takes 30 %, burst 5 s", 5.0)
}

fn scaled(seed: u64, name: &'static str, burst: f64, factor: f64, told: bool, targets: Targets) -> Scenario {
    let base = saturated(name, org(seed, BY_OUTPUT, burst), closed(450), Binding::Output, targets);
    Scenario { script: vec![(240.0, Change::Scale { org: 0, factor, told })], ..base }
}

const HALVED: Targets = Targets { after_change_max: Some(3.0), ..NOTHING };

fn halved(seed: u64) -> Scenario {
    scaled(seed, "halved, not told", 60.0, 0.5, false, HALVED)
}

fn halved_5(seed: u64) -> Scenario {
    scaled(seed, "halved, not told, burst 5 s", 5.0, 0.5, false, HALVED)
}

fn halved_told(seed: u64) -> Scenario {
    scaled(seed, "halved, headers say so", 5.0, 0.5, true, HALVED)
}

fn doubled(seed: u64) -> Scenario {
    scaled(seed, "doubled, not told", 60.0, 2.0, false, Targets { throttled_max: Some(0), ..NOTHING })
}

fn doubled_told(seed: u64) -> Scenario {
    scaled(seed, "doubled, headers say so", 5.0, 2.0, true, Targets { throttled_max: Some(0), ..NOTHING })
}

// From here on: held out.

/// As much as the limit gives, in bursts; the queue empties now and then.
fn open_bursts(seed: u64) -> Scenario {
    let crowd = Crowd { arrivals: Arrivals::Open { per_second: 10.0, cv: 3.0 }, ..USUAL };
    let targets = Targets { throttled_max: Some(0), answered_min: Some(99.5), ..NOTHING };
    saturated("open bursts at 80 %, burst 5 s", org(seed, BY_OUTPUT, 5.0), crowd, Binding::Output, targets)
}

/// Twice what the limit gives: half has to be shed, and all of the limit used.
fn open_twice(seed: u64) -> Scenario {
    let crowd = Crowd { arrivals: Arrivals::Open { per_second: 24.0, cv: 1.0 }, ..USUAL };
    saturated("open, twice the limit, burst 60 s", org(seed, BY_OUTPUT, 60.0), crowd, Binding::Output, WIDE)
}

fn four_orgs(seed: u64) -> Scenario {
    let orgs = (0..4).map(|n| org(seed ^ n, BY_OUTPUT, [60.0, 5.0, 60.0, 5.0][n as usize])).collect();
    let mut base = saturated("four organisations", org(seed, BY_OUTPUT, 5.0), closed(1_600), Binding::Output, WIDE);
    base.orgs = orgs;
    base
}

fn ramp(seed: u64) -> Scenario {
    let plan = OrgPlan { ramp_floor: Some(6.0), ..org(seed, BY_OUTPUT, 60.0) };
    saturated("ramp limit", plan, closed(300), Binding::Output, RAMP)
}

/// Thinking that is not shown: the host learns an answer's length at its end.
fn unseen(seed: u64) -> Scenario {
    let crowd = Crowd { seen: false, ..reasoning(220) };
    let base = saturated("reasoning unseen, burst 60 s", org(seed, BY_OUTPUT, 60.0), crowd, Binding::Output, WIDE);
    Scenario { seconds: 900.0, ..base }
}

/// Three tenants, weights 1 : 1 : 2, the first with several times the clients of the others.
fn flooded(name: &'static str, org: OrgPlan, times: usize, targets: Targets) -> Scenario {
    let of = |tenant, clients: usize| Crowd { tenant, ..closed(clients * times) };
    let base = saturated(name, org, closed(0), Binding::Output, targets);
    Scenario { weights: vec![1.0, 1.0, 2.0], crowds: vec![of(0, 450), of(1, 120), of(2, 180)], ..base }
}

/// The Scale tier: 60 requests a second.
fn flood(seed: u64) -> Scenario {
    let scale = BY_OUTPUT.map(|limit| limit * 5);
    let targets = Targets { jain_min: Some(0.99), ..WIDE };
    let base = flooded("flood, weights 1:1:2", org(seed, scale, 60.0), 5, targets);
    Scenario { seconds: 240.0, ..base }
}

/// The Start tier: each tenant gets 3 to 6 requests a second, and how long an answer will be nobody
/// knows when it goes. Their lengths have a coefficient of variation of 0.95, so what thirty of them
/// use in ten seconds varies by a sixth whatever the order is, which is a Jain index of 0.98. In a
/// minute it has been made up for.
fn flood_small(seed: u64) -> Scenario {
    let targets = Targets { jain_min: Some(0.99), ..WIDE };
    let base = flooded("flood, Start tier, by the minute", org(seed, BY_OUTPUT, 60.0), 1, targets);
    Scenario { window: 60.0, ..base }
}

/// One who floods against fifty who ask for little.
fn one_against_fifty(seed: u64) -> Scenario {
    let small = |tenant| Crowd { tenant, arrivals: Arrivals::Open { per_second: 0.1, cv: 1.0 }, ..USUAL };
    let targets = Targets { others_p99_max: Some(10.0), ..WIDE };
    let base = saturated("one floods fifty", org(seed, BY_OUTPUT, 60.0), closed(0), Binding::Output, targets);
    let crowds = std::iter::once(closed(450)).chain((1..=50).map(small)).collect();
    Scenario { weights: vec![1.0; 51], crowds, ..base }
}

fn keys_revoked(seed: u64) -> Scenario {
    let two_keys = OrgPlan { keys: vec![None, None], ..org(seed, BY_OUTPUT, 60.0) };
    let revoke = |org, key, revoked| Change::Revoke { org, key, revoked };
    let targets = Targets { throttled_max: Some(0), ..NOTHING };
    let mut base = saturated("keys revoked", two_keys.clone(), closed(700), Binding::Output, targets);
    base.orgs.push(two_keys);
    // One of two; then all of an organisation; then they are accepted again.
    base.script = vec![(120.0, revoke(0, 0, true)), (200.0, revoke(0, 1, true))];
    base.script.extend([(350.0, revoke(0, 0, false)), (400.0, revoke(0, 1, false))]);
    base
}

fn spend_cap(seed: u64) -> Scenario {
    let mut base = saturated("spend cap", org(seed, BY_OUTPUT, 60.0), closed(700), Binding::Output, NOTHING);
    base.orgs.push(org(seed ^ 1, BY_OUTPUT, 60.0));
    let cap = |reached| Change::SpendCap { org: 0, reached };
    base.script = vec![(120.0, cap(true)), (330.0, cap(false))];
    base
}

fn overload(seed: u64) -> Scenario {
    let bursts = [(100.0, 0.9), (130.0, 0.0), (250.0, 0.3), (300.0, 0.0)];
    let to = |(at, chance)| (at, Change::Overloaded { org: 0, chance });
    let mut base = saturated("529 in bursts", org(seed, BY_OUTPUT, 60.0), closed(450), Binding::Output, NOTHING);
    base.script = bursts.into_iter().map(to).collect();
    base.targets.throttled_max = Some(0);
    base
}

fn failures(seed: u64) -> Scenario {
    let mut base = saturated("500 at 5 %, two orgs", org(seed, BY_OUTPUT, 60.0), closed(700), Binding::Output, NOTHING);
    base.orgs.push(org(seed ^ 1, BY_OUTPUT, 60.0));
    base.script =
        vec![(90.0, Change::Broken { org: 0, chance: 0.05 }), (90.0, Change::Broken { org: 1, chance: 0.05 })];
    base.targets.throttled_max = Some(0);
    base
}

/// Two classes with limits of their own, one bound by output and one by input.
fn mixed_models(seed: u64) -> Scenario {
    let mut plan = org(seed, BY_OUTPUT, 60.0);
    plan.limits.push(per_minute(BY_INPUT[0], BY_INPUT[1], BY_INPUT[2]));
    let mut base = saturated("two classes of models", plan, closed(450), Binding::Output, WIDE);
    base.crowds.push(Crowd { class: 1, ..closed(500) });
    base.binding.push(Binding::Input);
    base
}

/// Four keys, two of them in a workspace that may use a quarter of the organisation's limits.
fn workspace(seed: u64) -> Scenario {
    let mut plan = org(seed, BY_OUTPUT, 60.0);
    plan.workspaces = vec![per_minute(BY_OUTPUT[0] / 4, BY_OUTPUT[1] / 4, BY_OUTPUT[2] / 4)];
    plan.keys = vec![Some(0), None, Some(0), None];
    saturated("a workspace's own limits", plan, closed(450), Binding::Output, WIDE)
}

fn unknown_limits(seed: u64) -> Scenario {
    let targets = Targets { throttled_max: Some(0), use_min: Some(99.0), ..NOTHING };
    let base =
        saturated("limits learned from headers", org(seed, BY_OUTPUT, 60.0), closed(450), Binding::Output, targets);
    Scenario { told: false, ..base }
}

/// Many followers of a few long system prompts, in waves.
fn shared_prompts(seed: u64) -> Scenario {
    let sharing = Sharing::Prompts { prompts: 5, tokens: 8_000.0 };
    let crowd = Crowd { sharing, arrivals: Arrivals::Open { per_second: 6.0, cv: 3.0 }, ..USUAL };
    let targets = Targets { throttled_max: Some(0), paid_again_max: Some(1.0), answered_min: Some(99.5), ..NOTHING };
    let mut base = saturated("cold shared prompts", org(seed, BY_OUTPUT, 60.0), crowd, Binding::Output, targets);
    base.orgs.push(org(seed ^ 1, BY_OUTPUT, 60.0));
    base
}

fn conversations(seed: u64) -> Scenario {
    let crowd = Crowd { sharing: Sharing::Conversations { turns: 10 }, ..closed(200) };
    let targets = Targets { throttled_max: Some(0), warm_turns_min: Some(95.0), ..NOTHING };
    let mut base = saturated("conversations, four orgs", org(seed, BY_OUTPUT, 60.0), crowd, Binding::Output, targets);
    base.orgs = (0..4).map(|n| org(seed ^ n, BY_OUTPUT, 60.0)).collect();
    base
}

fn leaving(seed: u64) -> Scenario {
    let crowd = Crowd { leaves: 0.3, ..closed(450) };
    let targets = Targets { throttled_max: Some(0), ..NOTHING };
    saturated("three in ten clients leave", org(seed, BY_OUTPUT, 5.0), crowd, Binding::Output, targets)
}

/// All three bands, the interactive one in a hurry.
fn bands(seed: u64) -> Scenario {
    let of = |band, per_second, patience| Crowd {
        band,
        patience,
        arrivals: Arrivals::Open { per_second, cv: 1.0 },
        ..USUAL
    };
    let mut base = saturated("three bands", org(seed, BY_OUTPUT, 60.0), closed(0), Binding::Output, WIDE);
    base.crowds =
        vec![of(Band::Interactive, 4.0, 10.0), of(Band::Normal, 6.0, 600.0), of(Band::Background, 8.0, 600.0)];
    base
}

/// A provider that reserves `max_tokens`, as the API once did.
fn reserved(seed: u64) -> Scenario {
    let plan = OrgPlan { counting: Counting::Reserved, ..org(seed, BY_OUTPUT, 60.0) };
    let targets = Targets { throttled_max: Some(0), ..NOTHING };
    saturated("max_tokens is reserved", plan, closed(450), Binding::Output, targets)
}

fn output_1_far(seed: u64) -> Scenario {
    let org = org(seed, BY_OUTPUT, 1.0);
    let base = saturated("output, burst 1 s, jitter 200 ms", org, closed(450), Binding::Output, NARROW);
    Scenario { network: FAR, ..base }
}

/// Prompts of 30,000 tokens on average where a bucket holds 83,000: the largest wait until it is full,
/// and everybody behind them. What runs over meanwhile is lost, the more the less is known of how much
/// the bucket holds; but everybody is served in the end.
fn huge_prompts(seed: u64) -> Scenario {
    let crowd = Crowd { input: 30_000.0, patience: 600.0, band: Band::Background, ..closed(60) };
    let targets = Targets { use_min: Some(80.0), per_100_max: Some(1.0), answered_min: Some(99.5), ..NOTHING };
    saturated("huge prompts, burst 5 s", org(seed, BY_INPUT, 5.0), crowd, Binding::Input, targets)
}

/// A day that begins twice: five minutes of nothing between two crowds. The second time the seconds in
/// which streams build up are counted.
fn silence(seed: u64) -> Scenario {
    let mut base =
        saturated("two crowds and silence between", org(seed, BY_OUTPUT, 60.0), closed(0), Binding::Output, AGAIN);
    let first = Crowd { until: 120.0, ..closed(450) };
    base.crowds = vec![first, Crowd { from: 420.0, ..closed(450) }];
    base
}

/// Every scenario, in the order of the table.
pub(crate) const ALL: &[Make] = &[
    output_60,
    output_60_large_max,
    output_5,
    output_1,
    requests_60,
    requests_1,
    requests_1_far,
    input_off,
    input_off_5,
    reasoning_60,
    reasoning_5,
    foreign_60,
    foreign_5,
    halved,
    halved_5,
    halved_told,
    doubled,
    doubled_told,
    open_bursts,
    open_twice,
    four_orgs,
    ramp,
    unseen,
    flood,
    flood_small,
    one_against_fifty,
    keys_revoked,
    spend_cap,
    overload,
    failures,
    mixed_models,
    workspace,
    unknown_limits,
    shared_prompts,
    conversations,
    leaving,
    bands,
    reserved,
    output_1_far,
    huge_prompts,
    silence,
];
