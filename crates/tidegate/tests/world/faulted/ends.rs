//! To which end a stream has to come, given its faults, its readers and what was done to it.

use crate::world::faulted::asker::Read;
use crate::world::faulted::case::{Case, Fate};
use crate::world::faulted::checks::{TICK, Verdict};
use crate::world::faulted::fault::Harm;
use crate::world::faulted::plan::{Class, Door, Leave, Plan, Spoken};
use crate::world::faulted::visit::{Came, locked};
use tidegate_base::Moment;

/// The rule.
pub(crate) fn ends_as_it_must(case: &Case<'_>) -> Verdict {
    let (ask, plan) = (case.ask, case.plan);
    let harms = || ask.faults.iter().map(|fault| fault.harm);
    let huge = ask.faults.iter().any(|fault| fault.kind.starts_with("huge-at"));
    match &case.fate {
        Fate::Broke(code) | Fate::Refused(_, code) if code == "stream_cancelled" => {
            let called_off = ask.deleted.is_some() || ask.visits.iter().chain(&ask.twin).any(|v| v.cancel.is_some());
            let lonely = was_alone(case) || ask.class == Class::Plain;
            if called_off || lonely { Ok(()) } else { Err("it was called off by nobody".to_owned()) }
        }
        Fate::Broke(code) if code == "reader_too_slow" && plan.tight => Ok(()),
        Fate::Broke(code) if code == "stream_too_large" && huge => Ok(()),
        Fate::Left if may_be_left(case) => Ok(()),
        Fate::Left => Err("nobody was told its end".to_owned()),
        // After a 429 that tells no limits requests go one at a time, and one that is silent holds up all.
        Fate::Refused(_, code) | Fate::Broke(code) if code == "queue_wait_too_long" && is_throttled(case.plan) => {
            Ok(())
        }
        // Attempt after attempt stood still, each for minutes.
        Fate::Refused(_, code) | Fate::Broke(code) if code == "deadline_passed" && stands_still(case) => Ok(()),
        _ if harms().any(|harm| harm == Harm::Disorder) => Ok(()),
        Fate::Broke(code) if is_swept_along(case, code) => Ok(()),
        Fate::Broke(code) | Fate::Refused(_, code) if harms().all(|harm| harm == Harm::None) => {
            Err(format!("{code}, and nothing was broken"))
        }
        Fate::Refused(404, code) if code == "unknown_stream" && came_late(case) => Ok(()),
        Fate::Refused(status, code) => {
            let sole = ask.faults.len() == 1;
            match ask.faults[0].harm {
                Harm::Before | Harm::Breaks if sole => Err(format!("{status} {code}, where it can be asked again")),
                _ => Ok(()),
            }
        }
        Fate::Whole | Fate::Broke(_) => Ok(()),
    }
}

/// Whether several attempts at it say nothing for long.
fn stands_still(case: &Case<'_>) -> bool {
    let silent = |kind: &str| matches!(kind, "stall-at" | "pings-at" | "slow-head");
    case.ask.struck > 1 && case.ask.faults.iter().any(|fault| silent(&fault.kind))
}

/// Whether the API says 429 to anybody, or what means the same inside a stream.
fn is_throttled(plan: &Plan) -> bool {
    let throttles = |text: &str| text.starts_with("status:429") || text.ends_with(":rate_limit_error");
    plan.asks.iter().flat_map(|ask| &ask.faults).any(|fault| throttles(&fault.text))
}

/// Whether its reader came back when its time was over.
fn came_late(case: &Case<'_>) -> bool {
    let kept = case.plan.settings.clocks.stream_kept;
    let ended = case.records.iter().filter_map(|record| record.ended).max();
    let last = case.reads.iter().map(|read| read.began).max();
    ended.zip(last).is_some_and(|(ended, last)| last + TICK >= ended + kept)
}

/// Whether a neighbour on its connection may have taken it along.
fn is_swept_along(case: &Case<'_>, code: &str) -> bool {
    case.plan.spoken != Spoken::Http1 && code == "upstream_broken" && !case.plan.gentle
}

/// Whether nobody read it for as long as it goes on alone.
fn was_alone(case: &Case<'_>) -> bool {
    let grace = case.plan.settings.clocks.detach_grace;
    let mut spans: Vec<_> = case.reads.iter().map(|read| (read.began, read.ended)).collect();
    spans.sort();
    let mut read_to = Moment::ZERO;
    for (began, ended) in spans {
        if read_to > Moment::ZERO && began.since(read_to) + TICK >= grace && began > read_to {
            return true;
        }
        read_to = read_to.max(ended);
    }
    false
}

/// Whether it may be that nobody was told its end.
fn may_be_left(case: &Case<'_>) -> bool {
    let ask = case.ask;
    let cancelled = ask.visits.iter().any(|visit| visit.cancel.is_some());
    let cut = case.reads.iter().any(|read| matches!(read.came, Came::Cut(_)) && matches!(read.door, Door::Socket(_)));
    let left = ask.visits.iter().any(|visit| matches!(visit.leave, Some(Leave::AtBytes(_) | Leave::After(_))));
    let unnamed = locked(&case.line.stream).is_none();
    let gone = *locked(&case.line.gone) && case.plan.tight;
    let slow_plain = case.plan.tight && ask.class == Class::Plain;
    cancelled || gone || slow_plain || (ask.class == Class::Plain || unnamed) && (left || cut)
}

/// What a client reads is cut by nobody, but where it is too slow for what may wait for it.
pub(crate) fn answers_are_whole(case: &Case<'_>) -> Verdict {
    let of_http = |read: &&Read| !matches!(read.door, Door::Socket(_));
    match case.reads.iter().filter(of_http).find(|read| matches!(read.came, Came::Cut(_))) {
        Some(read) if !case.plan.tight => Err(format!("{:?} from {:?}: {:?}", read.door, read.after, read.came)),
        _ => Ok(()),
    }
}
