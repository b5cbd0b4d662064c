//! The page of quota domains: `GET /domains` on the admin port.
//!
//! What the scheduler believes, with names in place of numbers. `docs/scheduling.md` says how to
//! read it.

use crate::house::House;
use serde_json::{Value, json};
use std::time::Duration;
use tidegate_schedule::{Band, DomainView, LaneId, MeterView, OrgId, TenantId, WorkspaceId};

/// Tenants shown in one domain's queue; the number beside them is of all.
const TENANTS_MAX: usize = 100;

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Every domain seen so far.
pub(crate) fn page(house: &House) -> Value {
    let (waiting, leased) = house.admission.counts();
    let domains: Vec<_> = house.admission.domains().iter().map(|d| domain(house, d)).collect();
    json!({"waiting": waiting, "leases": leased, "domains": domains})
}

/// One domain in a few words, for `/snapshot`.
pub(crate) fn short(house: &House, d: &DomainView) -> Value {
    json!({
        "organisation": house.organisation(d.org),
        "workspace": workspace(house, d.org, d.workspace),
        "class": house.class_name(d.class),
        "in_flight": d.in_flight,
        "queued": d.queued.iter().sum::<usize>(),
        "closed_for_ms": ms(d.closed_for),
        "throttled": d.throttled,
    })
}

fn workspace(house: &House, org: OrgId, workspace: Option<WorkspaceId>) -> Option<&str> {
    let org = house.settings.organisations.get(org.0 as usize)?;
    org.workspaces.get(usize::from(workspace?.0)).map(|w| w.name.as_str())
}

fn domain(house: &House, d: &DomainView) -> Value {
    let now = house.clock.now();
    let by_band = Band::ALL.iter().zip(d.queued).map(|(band, n)| (band.name(), n));
    let mut by_tenant: Vec<(TenantId, usize)> = d.queued_by_tenant.clone();
    by_tenant.sort_by_key(|(tenant, n)| (std::cmp::Reverse(*n), *tenant));
    let tenants = by_tenant.len();
    by_tenant.truncate(TENANTS_MAX);
    let by_tenant: Vec<_> =
        by_tenant.iter().map(|(id, n)| json!({"tenant": house.tenants.name(*id), "waiting": n})).collect();
    let keys = d.keys.iter().map(|k| {
        let label = house.lane_label(LaneId { org: d.org, key: k.key });
        json!({"key": label, "in_flight": k.in_flight, "put_aside_for_ms": ms(k.rejected_for)})
    });
    json!({
        "organisation": house.organisation(d.org),
        "workspace": workspace(house, d.org, d.workspace),
        "class": house.class_name(d.class),
        "knowledge": d.knowledge,
        "limits": meters(&d.meters),
        "workspace_limits": d.workspace_meters.as_ref().map(meters),
        "in_flight": d.in_flight,
        "in_flight_max": d.in_flight_max,
        "window": d.window,
        "queue": {
            "by_band": by_band.collect::<std::collections::BTreeMap<_, _>>(),
            "tenants": tenants,
            "by_tenant": by_tenant,
            "next_waits_for": d.head.map(|(reason, _)| reason.name()),
            "next_waits_ms": d.head.map(|(_, wait)| ms(wait)),
        },
        "predicted_wait_ms": d.predicted_wait.map(ms),
        "closed_for_ms": ms(d.closed_for),
        "spend_cap_for_ms": ms(d.spend_cap_for),
        "breaker": {"state": d.breaker, "for_ms": ms(d.breaker_for)},
        "throttled": d.throttled,
        "last_throttle": d.last_throttle.map(|(at, by)| json!({"by": by.name(), "age_ms": ms(now.since(at))})),
        "first_event_ms": ms(d.first_event),
        "tokens_per_second": d.speed,
        "output_tokens": d.output,
        "estimate_error": d.estimate_error,
        "estimate_bias": d.estimate_bias,
        "keys": keys.collect::<Vec<_>>(),
    })
}

fn meters(meters: &[MeterView; 3]) -> Value {
    let one = |m: &MeterView| {
        json!({
            "per_minute": m.limit,
            "from": m.source,
            "believed_per_second": m.rate,
            "low": m.low,
            "high": m.high,
            "capacity": m.capacity,
            "used": m.used,
            "used_by_others": m.foreign,
        })
    };
    json!({"requests": one(&meters[0]), "input_tokens": one(&meters[1]), "output_tokens": one(&meters[2])})
}
