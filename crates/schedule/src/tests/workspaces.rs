//! Limits of workspaces that nobody configured: from what their answers tell.

use super::*;

const NORTH: Pin = Pin { org: OrgId(0), workspace: Some(None) };
const LAB: Pin = Pin { org: OrgId(0), workspace: Some(Some(WorkspaceId(0))) };

fn two_workspaces() -> Scheduler {
    scheduler(&[OrgSpec { keys: vec![None, Some(WorkspaceId(0))], workspaces: 1, ..OrgSpec::default() }])
}

/// One that is answered at once, with a head that tells these limits of full buckets.
fn answered(s: &mut Scheduler, now: u64, pin: Pin, told: Limits) {
    let lease = go(s, at(now), Ask { pin: Some(pin), ..ask() });
    let remaining = [told.requests, told.input_tokens, told.output_tokens].map(|limit| limit.unwrap_or_default());
    s.heard(at(now), lease.id(), &levels(told, remaining));
    s.began(at(now), lease.id());
    s.settle(at(now), lease, spent(100, 100));
}

fn lab(s: &Scheduler, now: u64) -> DomainView {
    s.domains(at(now)).into_iter().find(|d| d.workspace.is_some()).unwrap()
}

#[test]
fn a_limit_that_only_one_workspace_is_told_is_its_own() {
    let (all, part) = (limits(6_000, 600_000, 600_000), limits(60, 600_000, 600_000));
    for lab_first in [false, true] {
        let mut s = two_workspaces();
        let told = [(NORTH, all), (LAB, part)];
        for n in 0..2 {
            let (pin, told) = told[(n + usize::from(lab_first)) % 2];
            answered(&mut s, n as u64 * 61_000, pin, told);
        }
        let view = lab(&s, 61_000);
        let own = view.workspace_meters.unwrap();
        assert_eq!((own[0].limit, own[1].limit, own[2].limit), (Some(60), None, None));
        assert_eq!(view.meters[0].limit, Some(6_000), "the organisation's is what it was");
        // Twenty for each: the lab's at one a second, the others as they come.
        for _ in 0..20 {
            s.ask(at(61_500), Ask { pin: Some(LAB), ..ask() });
            s.ask(at(61_500), Ask { pin: Some(NORTH), ..ask() });
        }
        let went = pass(&mut s, at(61_500), at(66_500));
        let of_lab = went.iter().filter(|(.., v)| matches!(v, Verdict::Go(lease) if lease.lane().key == 1)).count();
        assert!((3..=6).contains(&of_lab), "{of_lab}");
        assert_eq!(s.audit().difference, 0.0);
    }
}

#[test]
fn a_limit_that_was_changed_for_all_is_nobodys_own_for_long() {
    let (before, after) = (limits(6_000, 600_000, 600_000), limits(3_000, 600_000, 600_000));
    let mut s = two_workspaces();
    answered(&mut s, 0, NORTH, before);
    answered(&mut s, 61_000, LAB, before);
    assert!(lab(&s, 61_000).workspace_meters.is_none());
    answered(&mut s, 122_000, LAB, after);
    answered(&mut s, 183_000, NORTH, after);
    let view = lab(&s, 183_000);
    assert!(view.workspace_meters.unwrap().iter().all(|m| m.limit.is_none()));
    assert_eq!(view.meters[0].limit, Some(3_000));
}

#[test]
fn what_is_configured_stays_while_there_is_nothing_to_compare_with() {
    let mut s = two_workspaces();
    let all = limits(6_000, 600_000, 600_000);
    s.know(at(0), OrgId(0), None, CLASS, all);
    s.know(at(0), OrgId(0), Some(WorkspaceId(0)), CLASS, Limits { requests: Some(60), ..Limits::default() });
    answered(&mut s, 0, LAB, limits(60, 600_000, 600_000));
    answered(&mut s, 61_000, LAB, limits(60, 500_000, 600_000));
    let own = |s: &Scheduler| lab(s, 61_000).workspace_meters.unwrap()[0].limit;
    assert_eq!(own(&s), Some(60));
}

#[test]
fn a_refusal_blames_the_limit_that_its_head_names() {
    let (all, part) = (limits(6_000, 600_000, 600_000), limits(60, 600_000, 600_000));
    let mut s = two_workspaces();
    answered(&mut s, 0, NORTH, all);
    answered(&mut s, 61_000, LAB, part);
    let lease = go(&mut s, at(62_000), Ask { pin: Some(LAB), ..ask() });
    s.heard(at(62_000), lease.id(), &levels(part, [0, 600_000, 600_000]));
    s.settle(at(62_000), lease, throttled(Throttle::Requests, 1_000));
    let view = lab(&s, 62_000);
    assert_eq!(view.meters[0].rate, 100.0, "the organisation's limit refused nobody");
    assert!(view.workspace_meters.unwrap()[0].rate < 1.0);
}
