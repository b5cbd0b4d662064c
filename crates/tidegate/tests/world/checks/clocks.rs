//! When an answer comes: attempts, deadlines, silence, leaving.

use super::Verdict;
use super::case::Case;
use crate::world::client::End;
use crate::world::plan::{Reader, Upload, What};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_simulator::Record;

/// How long after a client's leaving its upstream stream may still be open.
const CLOSING_MAX: Duration = Duration::from_millis(50);
/// From one piece of a trickle to the next.
const TRICKLE: Duration = Duration::from_millis(100);
/// How long a refusal waits to be read.
pub(super) const LINGER: Duration = Duration::from_secs(10);
/// What timers may add to a deadline (they tick in milliseconds).
pub(crate) const TICK: Duration = Duration::from_millis(20);

pub(super) fn no_retry_after_content(case: &Case<'_>) -> Verdict {
    let body = &case.seen.reading;
    let from = match (&case.story, case.seen.end) {
        (Some(story), _) => story.content_from,
        (None, End::Answered) => Some(body.body.len()),
        _ => None,
    };
    let Some(from) = from else { return Ok(()) };
    let slow = !matches!(case.request.reader, Reader::Eager);
    let Some((at, _)) = body.marks.iter().find(|(_, len)| *len >= from) else { return Ok(()) };
    match case.records.iter().find(|r| r.began > *at) {
        Some(late) if !slow => Err(format!("attempt {} began after content was read at {at}", late.ordinal)),
        _ => Ok(()),
    }
}

pub(super) fn attempts_bounded(case: &Case<'_>) -> Verdict {
    // An attempt over a kept connection that turns out dead goes out once more. What is refused
    // under load is asked for again as long as there is time, and not as fast as can be.
    let most = case.over.scene.settings.schedule.retry.attempts_max.max(1) as usize * 2;
    let refused = |r: &Record| matches!(r.status, 429 | 504 | 529) || r.faults.contains(&"error-at");
    let under_load = case.records.iter().filter(|r| refused(r)).count();
    // So does each of those: what went before it at once, and was not answered at all.
    let unanswered = |r: &Record| r.status == 0 && !refused(r);
    let again = |pair: &&[&Record]| unanswered(pair[0]) && pair[0].ended == Some(pair[1].began) && refused(pair[1]);
    let gone_out_again = case.records.windows(2).filter(again).count();
    let counted = case.records.len() - under_load - gone_out_again;
    if counted > most {
        return Err(format!("{counted} attempts besides {under_load} that were refused under load, allowed {most}"));
    }
    // Waits double from `base` to `cap`: nine or so in the first seconds, then one in some ten.
    let lived = case.seen.ended.since(case.seen.began);
    let often = 30 + lived.as_secs() as usize / 2;
    if under_load > often { Err(format!("{under_load} refused attempts in {lived:?}")) } else { Ok(()) }
}

pub(super) fn deadline_kept(case: &Case<'_>) -> Verdict {
    let Some(deadline) = case.request.deadline else { return Ok(()) };
    let eager = case.request.reader == Reader::Eager && case.request.upload == Upload::Whole;
    // It counts from the head's arrival; where connections are few, that may be late.
    let accepted_at_once = !is_crowded(case);
    let took = case.seen.ended.since(case.seen.began);
    let concerned = eager && accepted_at_once && case.request.what == What::Message && case.seen.end == End::Answered;
    if concerned && took > deadline + TICK { Err(format!("took {took:?} of {deadline:?}")) } else { Ok(()) }
}

pub(super) fn vanished_clients_close_upstream(case: &Case<'_>) -> Verdict {
    if case.seen.end != End::Left {
        return Ok(());
    }
    let left = case.seen.ended;
    for record in case.records.iter().chain(&case.abandoned) {
        let ended = record.ended.ok_or("an attempt never ended")?;
        let from = record.began.max(left);
        // A trickle looks for its end a tenth of a second after its last bytes.
        let most = if record.faults.contains(&"trickle") { CLOSING_MAX + TRICKLE } else { CLOSING_MAX };
        if ended > from && ended.since(from) > most {
            return Err(format!("attempt {} went on for {:?}", record.ordinal, ended.since(from)));
        }
    }
    Ok(())
}

/// Whether there may be fewer connections and streams than wanted.
pub(super) fn is_crowded(case: &Case<'_>) -> bool {
    let limits = &case.over.scene.settings.limits;
    limits.connections.min(limits.streams) <= 1_000
}

/// Whether the client did all it could to be served quickly.
pub(super) fn is_swift(case: &Case<'_>) -> bool {
    let alone = !is_crowded(case);
    let request = case.request;
    let swift = request.reader == Reader::Eager
        && request.upload == Upload::Whole
        && request.leave.is_none()
        && !request.follows;
    alone && swift && case.seen.end == End::Answered && request.what == What::Message
}

pub(super) fn nothing_held_up(case: &Case<'_>) -> Verdict {
    let good = case.status() == 200 && case.story.as_ref().is_none_or(|story| story.stopped);
    let Some(ended) = case.records.last().and_then(|r| r.ended) else { return Ok(()) };
    let late = case.seen.ended.since(ended);
    if is_swift(case) && good && late > TICK { Err(format!("{late:?} after the API had said all")) } else { Ok(()) }
}

pub(super) fn silence_is_broken(case: &Case<'_>) -> Verdict {
    let Some(story) = &case.story else { return Ok(()) };
    if !is_swift(case) || !story.ended() {
        return Ok(());
    }
    let mut last = case.seen.sent;
    for at in case.seen.reading.heard.iter().copied() {
        let silence = at.since(last);
        if silence > case.over.scene.settings.clocks.heartbeat + TICK {
            return Err(format!("nothing from {last} to {at}, {silence:?}"));
        }
        last = at;
    }
    Ok(())
}

pub(super) fn progress_clock_holds(case: &Case<'_>) -> Verdict {
    let Some(story) = &case.story else { return Ok(()) };
    let clocks = &case.over.scene.settings.clocks;
    let most = clocks.progress.max(clocks.progress_unseen) + TICK;
    let marks = &case.seen.reading.marks;
    let came = story.progress.iter().filter_map(|end| marks.iter().find(|(_, len)| len >= end).map(|(at, _)| *at));
    // Before content, attempts may follow each other.
    let came: Vec<Moment> = came.skip(1).collect();
    match came.windows(2).find(|pair| pair[1].since(pair[0]) > most) {
        Some(pair) if is_swift(case) => Err(format!("nothing but pings from {} to {}", pair[0], pair[1])),
        _ => Ok(()),
    }
}

pub(super) fn cancels_at_once(case: &Case<'_>) -> Verdict {
    let prompt =
        |at: &Duration| case.seen.ended.since(Moment::ZERO + *at) <= TICK && case.seen.ended >= Moment::ZERO + *at;
    let cancelled = case.error_code() == Some("cancelled_by_operator") && is_swift(case);
    if !cancelled || case.over.scene.cancels.iter().any(|(at, _)| prompt(at)) {
        return Ok(());
    }
    Err(format!("told at {}, cancels at {:?}", case.seen.ended, case.over.scene.cancels))
}

pub(super) fn nobody_gives_up_early(case: &Case<'_>) -> Verdict {
    let scene = case.over.scene;
    let broken = ["upstream_broken", "upstream_error", "upstream_overloaded", "upstream_timeout"];
    // What the API calls the client's mistake stays one.
    let gave_up = case.error_code().is_some_and(|code| broken.contains(&code)) && !case.is_clients_mistake();
    let content = case.story.as_ref().is_some_and(|story| story.content_from.is_some());
    // Only where every attempt is known, and nothing but the number of attempts ends them.
    let slow_connect = |f: &tidegate_simulator::Fault| matches!(f, tidegate_simulator::Fault::SlowConnect(_));
    let known = case.request.model.starts_with("echo")
        && !scene.scenario.faults.iter().flat_map(|rule| &rule.faults).any(slow_connect)
        && scene.scenario.organisations.iter().all(|org| org.revoked.is_empty())
        && !scene.settings.organisations.iter().any(|org| org.name == "gone");
    let rules = scene.settings.schedule.retry;
    let rich = rules.budget as usize >= 14 * case.over.records.len();
    let took = case.seen.ended.since(case.seen.began);
    let in_time = case.request.deadline.is_none() && took + rules.cap < scene.settings.clocks.whole;
    // What is refused under load is asked for as long as its band may wait.
    let band = case.request.lines.iter().find(|(name, _)| *name == "tidegate-priority");
    let band = band.and_then(|(_, value)| tidegate_schedule::Band::of_name(value)).unwrap_or_default();
    let waited_out = took >= scene.settings.schedule.queue.wait_max[band as usize];
    if case.error_code() == Some("upstream_overloaded") && waited_out {
        return Ok(());
    }
    let attempts = case.records.len();
    if gave_up && !content && known && rich && in_time && attempts < rules.attempts_max as usize {
        return Err(format!("after {attempts} attempts of {}", rules.attempts_max));
    }
    Ok(())
}

pub(super) fn calm_succeeds(case: &Case<'_>) -> Verdict {
    // A neighbour on the same connection may have taken it along.
    let stays = case.request.stays() && case.seen.end != End::Left;
    let concerned = case.over.scene.calm && stays && case.request.what == What::Message;
    // An answer may be longer than the client's patience.
    let impatient = case.request.lines.iter().any(|(name, _)| *name == "x-stainless-timeout");
    if !concerned || impatient && case.error_code() == Some("deadline_passed") {
        return Ok(());
    }
    let stopped = case.story.as_ref().is_none_or(|story| story.stopped);
    if case.seen.end == End::Answered && case.status() == 200 && stopped && case.records.len() == 1 {
        return Ok(());
    }
    Err(format!("{:?} {} after {} attempts", case.seen.end, case.status(), case.records.len()))
}
