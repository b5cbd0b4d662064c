//! That an answer comes, as one that is documented, named, and without a secret.

use super::Verdict;
use super::case::Case;
use super::clocks::{LINGER, is_crowded};
use crate::world::client::End;
use crate::world::plan::{Reader, Upload, What};
use serde_json::Value;

pub(super) fn one_whole_answer(case: &Case<'_>) -> Verdict {
    let seen = case.seen;
    match seen.end {
        End::Hung => Err("it hangs".to_owned()),
        End::Answered | End::Left | End::Stopped => Ok(()),
        End::Unserved if case.drained_by(seen.ended) => Ok(()),
        // A slow reader is cut off when its backlog is over the limit, or when it stands still.
        End::Cut if case.request.reader != Reader::Eager && !case.over.scene.calm => Ok(()),
        End::Cut if is_narrow(case) => Ok(()),
        End::Cut if case.request.leave.is_some() || matches!(case.request.reader, Reader::Stops(_)) => Ok(()),
        // It was never a request, and the gateway was going down or idle for too long.
        End::Cut | End::Unserved => Err(format!("{:?}: {:?}", seen.end, seen.reading.broken)),
    }
}

/// Whether a client may be cut off although it reads. Any: an event came that is larger than a small
/// backlog. One of HTTP/2: what came at one moment is more than that takes before its window opens
/// again, or it reads only when it has sent all, and that takes longer than a refusal waits to be
/// read.
pub(super) fn is_narrow(case: &Case<'_>) -> bool {
    let burst = case.over.scene.settings.limits.backlog_bytes < 256 * 1024;
    if burst && case.records.iter().any(|record| record.faults.contains(&"huge-at")) {
        return true;
    }
    let busy = matches!(case.request.upload, Upload::Pieces(..)) && case.seen.sent.since(case.seen.began) > LINGER;
    case.request.http2 && (burst || busy && case.status() >= 400)
}

pub(super) fn documented_statuses(case: &Case<'_>) -> Verdict {
    let status = case.status();
    if status == 0 {
        return Ok(());
    }
    let upstream_says: &[u16] = &[200, 400, 403, 404, 413, 500, 502, 503, 504, 529];
    let allowed: &[u16] = match case.request.what {
        What::Message => upstream_says,
        What::CountTokens | What::Models | What::OneModel => &[200, 500, 502, 504, 529],
        What::Root | What::RootHead => &[200],
        What::UnknownPath => &[404],
        What::WrongMethod => &[405],
        What::StrangeKey => &[401],
        What::StrangeHeader | What::GarbageHead | What::TwoFrames => &[400],
        What::BadJson | What::NoModel => &[400, 529],
        What::TooLarge => &[413, 529],
        What::SlowBody => &[408, 529],
        What::HugeHead => &[431],
        What::SlowHead => &[408],
    };
    // What the upstream was not told to say, it did not say.
    let told = |status: u16| {
        let of_place = matches!(status, 400);
        let faults = || case.over.scene.scenario.faults.iter().flat_map(|rule| &rule.faults);
        faults().any(|f| matches!(f, tidegate_simulator::Fault::Status { status: s, .. } if *s == status))
            || of_place
                && faults().any(|f| matches!(f, tidegate_simulator::Fault::ErrorEvent(_, "invalid_request_error")))
    };
    let large = case.request.body.to_string().len() as u64 > case.over.scene.settings.limits.body_bytes;
    let told_by_us = match case.error_code() {
        Some("cancelled_by_operator") => status == 500 && !case.over.scene.cancels.is_empty(),
        Some("draining") => status == 529 && case.drained_by(case.seen.ended),
        Some("too_many_streams") => status == 529 && is_crowded(case) && case.request.http2,
        Some("input_too_large") => status == 400 && is_too_large(case),
        // An answer to HEAD cannot say why.
        None if case.request.what == What::RootHead => status == 529 && is_crowded(case) && case.request.http2,
        // Of an answer that was not read to its end only the status is known.
        None => (matches!(status, 500 | 529) || status == 400 && is_too_large(case)) && case.seen.end != End::Answered,
        _ => false,
    };
    if told_by_us {
        return Ok(());
    }
    let dribbles = matches!(case.request.upload, Upload::Pieces(..));
    if status == 413 && large || status == 408 && dribbles {
        return Ok(());
    }
    let of_upstream = case.request.what == What::Message && matches!(status, 400 | 403 | 404 | 413 | 503);
    if !allowed.contains(&status) || of_upstream && !told(status) {
        return Err(format!("{status}"));
    }
    Ok(())
}

/// Whether no organisation's bucket ever holds what this input takes: as far as one can be off who
/// has to guess the tokens and what is saved up.
pub(super) fn is_too_large(case: &Case<'_>) -> bool {
    let model = &case.request.model;
    let class = if model.starts_with("echo") { "echo" } else { model.trim_start_matches("claude-") };
    let scenario = &case.over.scene.scenario;
    let holds = |limits: &tidegate_simulator::Limits| limits.input_tokens as f64 * limits.burst.as_secs_f64() / 60.0;
    let most = |org: &tidegate_simulator::Organisation| org.limits.get(class).map_or(f64::INFINITY, holds);
    let most = scenario.organisations.iter().map(most).fold(0.0, f64::max);
    let tokens = case.good.as_ref().and_then(|good| good["usage"]["input_tokens"].as_f64()).unwrap_or(0.0);
    tokens * 2.0 > most
}

pub(super) fn errors_in_the_envelope(case: &Case<'_>) -> Verdict {
    let check = |envelope: &Value, id: Option<&str>| {
        let kinds = [
            "invalid_request_error",
            "authentication_error",
            "permission_error",
            "not_found_error",
            "request_too_large",
            "api_error",
            "timeout_error",
            "overloaded_error",
        ];
        let error = &envelope["error"];
        let kind = error["type"].as_str().unwrap_or_default();
        let named = envelope["request_id"].as_str().is_some_and(|named| id.is_none_or(|id| id == named));
        let spoken = error["message"].as_str().is_some_and(|message| !message.is_empty());
        if envelope["type"] == "error" && kinds.contains(&kind) && named && spoken {
            Ok(())
        } else {
            Err(format!("{envelope}"))
        }
    };
    if let Some(error) = case.story.as_ref().and_then(|s| s.error.as_ref()) {
        check(error, None)?;
    }
    // An answer to HEAD has none.
    if case.seen.end != End::Answered || case.status() == 200 || case.request.what == What::RootHead {
        return Ok(());
    }
    check(case.json.as_ref().ok_or("no JSON")?, case.head("request-id"))
}

pub(super) fn answers_are_named(case: &Case<'_>) -> Verdict {
    let named = |name| case.head(name).is_some_and(|id| id.starts_with("req_"));
    let unnamed = matches!(case.request.what, What::Root | What::RootHead);
    if case.status() == 0 || unnamed || named("request-id") && named("tidegate-request-id") {
        return Ok(());
    }
    Err("request-id or tidegate-request-id is missing".to_owned())
}

pub(super) fn no_key_leaves(case: &Case<'_>) -> Verdict {
    let text = format!("{:?}{}", case.seen.reading.head, String::from_utf8_lossy(&case.seen.reading.body));
    if text.contains("sk-ant-") || text.contains("tg_key") { Err("a key".to_owned()) } else { Ok(()) }
}
