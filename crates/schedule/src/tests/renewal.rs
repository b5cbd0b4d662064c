//! What changes under requests that wait and leases that are out.

use super::*;

fn closed(n: usize, closed: &[u16]) -> OrgSpec {
    OrgSpec { closed: closed.iter().copied().collect(), ..keys(n) }
}

/// Everything is held by one request, so that the next waits.
fn full(s: &mut Scheduler) -> Lease {
    s.know(at(0), OrgId(0), None, CLASS, limits(1, 1_000_000, 1_000_000));
    go(s, at(0), ask())
}

/// Limits that nobody meets.
fn plenty(s: &mut Scheduler, orgs: u32) {
    (0..orgs).for_each(|n| s.know(at(0), OrgId(n), None, CLASS, limits(100_000, 100_000_000, 100_000_000)));
}

#[test]
fn who_waits_goes_to_an_organisation_that_comes() {
    let mut s = scheduler(&[keys(1)]);
    let _held = full(&mut s);
    let ticket = wait(&mut s, at(1), ask());
    s.set_organisations(at(2), &[keys(1), keys(1)]);
    let answers = s.advance(at(2));
    let [(answered, Verdict::Go(lease))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((*answered, lease.lane()), (ticket, LaneId { org: OrgId(1), key: 0 }));
}

#[test]
fn nothing_new_goes_to_an_organisation_that_is_gone_and_what_is_out_comes_home() {
    let mut s = scheduler(&[keys(1), keys(1)]);
    plenty(&mut s, 2);
    let leases = [go(&mut s, at(0), ask()), go(&mut s, at(2_000), ask())];
    s.set_organisations(at(3_000), &[closed(1, &[0]), keys(1)]);
    for n in 2..20 {
        let lease = go(&mut s, at(2_000 * n), ask());
        assert_eq!(lease.lane().org, OrgId(1));
        s.settle(at(2_000 * n + 100), lease, spent(100, 10));
    }
    let pin = Some(Pin { org: OrgId(0), workspace: None });
    let refused = s.ask(at(40_000), Ask { pin, ..ask() });
    assert!(matches!(refused, Verdict::Refuse(Refusal::NoKey)), "{refused:?}");
    leases.into_iter().for_each(|lease| s.settle(at(41_000), lease, spent(100, 10)));
    assert_eq!((s.leased(), s.audit().difference), (0, 0.0));
    assert_eq!(s.domains(at(41_000)).len(), 1, "what is gone and has nothing under way is not shown");
}

#[test]
fn who_waits_for_an_organisation_that_goes_hears_of_it_and_others_go_elsewhere() {
    let mut s = scheduler(&[keys(1), keys(1)]);
    let _held = full(&mut s);
    s.know(at(0), OrgId(1), None, CLASS, limits(1, 1_000_000, 1_000_000));
    let _other = go(&mut s, at(0), ask());
    let pinned = wait(&mut s, at(1), Ask { pin: Some(Pin { org: OrgId(0), workspace: None }), ..ask() });
    let free = wait(&mut s, at(1), ask());
    s.set_organisations(at(2), &[closed(1, &[0]), keys(1), keys(1)]);
    let mut answers = s.advance(at(2));
    answers.sort_by_key(|(ticket, _)| *ticket);
    assert!(
        matches!(&answers[..], [(first, Verdict::Refuse(Refusal::NoKey)), (second, Verdict::Go(lease))]
            if *first == pinned && *second == free && lease.lane().org == OrgId(2)),
        "{answers:?}"
    );
}

#[test]
fn a_key_is_changed_for_another_and_what_was_learned_stays() {
    let mut s = scheduler(&[keys(1)]);
    let lease = go(&mut s, at(0), ask());
    s.heard(at(1), lease.id(), &levels(limits(50, 500_000, 80_000), [49, 499_900, 80_000]));
    s.settle(at(2), lease, spent(100, 10));
    s.set_organisations(at(3), &[closed(2, &[0])]);
    let lease = go(&mut s, at(4), ask());
    assert_eq!(lease.lane().key, 1);
    assert_eq!(s.domains(at(4))[0].meters[0].limit, Some(50));
    s.settle(at(5), lease, spent(100, 10));
}

#[test]
fn a_failed_attempt_over_a_key_that_is_gone_may_be_repeated() {
    let mut s = scheduler(&[keys(1)]);
    let lease = go(&mut s, at(0), ask());
    let lane = lease.lane();
    s.set_organisations(at(1), &[closed(2, &[0])]);
    s.settle(at(2), lease, Outcome::Broken);
    let mut backoff = Backoff::new(Rules::default().retry);
    backoff.begin();
    let failed = FailedAttempt {
        lane,
        class: CLASS,
        tenant: TenantId(0),
        cause: Cause::Broken,
        asked: None,
        deadline: at(60_000),
    };
    let decision = s.retry(at(2), &mut backoff, &failed, &mut Prng::new(1));
    assert!(matches!(decision, Retry::At(_)), "{decision:?}");
}

#[test]
fn a_tenants_new_limit_counts_what_it_has_under_way() {
    let mut s = scheduler(&[keys(1)]);
    plenty(&mut s, 1);
    let leases = [go(&mut s, at(0), ask()), go(&mut s, at(2_000), ask())];
    s.set_tenant(at(3_000), TenantId(0), &TenantRules { concurrent: Some(2), ..TenantRules::default() });
    let ticket = wait(&mut s, at(4_000), ask());
    for lease in leases {
        s.settle(at(5_000), lease, spent(100, 10));
    }
    assert!(matches!(&s.advance(at(6_000))[..], [(answered, Verdict::Go(_))] if *answered == ticket));
}

#[test]
fn limits_of_the_configuration_are_told_again() {
    let mut s = scheduler(&[OrgSpec { keys: vec![Some(WorkspaceId(0))], workspaces: 1, ..OrgSpec::default() }]);
    let own = |s: &Scheduler| s.domains(at(1))[0].workspace_meters.as_ref().and_then(|m| m[0].limit);
    s.know(at(0), OrgId(0), Some(WorkspaceId(0)), CLASS, limits(10, 1_000, 1_000));
    assert_eq!(own(&s), Some(10));
    s.know(at(1), OrgId(0), Some(WorkspaceId(0)), CLASS, limits(20, 1_000, 1_000));
    assert_eq!(own(&s), Some(20));
}
