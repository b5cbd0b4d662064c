//! The rows of the table for streams that are read from a log.

use super::{Answer, row};
use crate::streams::StreamTrouble;
use std::time::Duration;
use tidegate_wire::error::ErrorType::*;
use tidegate_wire::websocket::handshake::Refused;

pub(super) fn answer(trouble: StreamTrouble) -> Answer {
    match trouble {
        StreamTrouble::Unknown => row(
            NotFound,
            "unknown_stream",
            "there is no such stream: it was not asked for with tidegate-resume, or ended too long ago, or is not yours",
        ),
        StreamTrouble::BadCursor => row(
            InvalidRequest,
            "invalid_cursor",
            "the cursor was never given out for this stream; send one as it came, or none to begin at the beginning",
        ),
        StreamTrouble::Gone => row(
            InvalidRequest,
            "cursor_gone",
            "what follows this place of the stream is not kept any more; ask for the whole answer again",
        )
        .status(410)
        .never_retry(),
        StreamTrouble::SlowReader => row(
            Overloaded,
            "reader_too_slow",
            "more of the stream came than was read of it, for too long; read faster, or ask with tidegate-resume",
        )
        .never_retry(),
        StreamTrouble::TooLarge => {
            row(Api, "stream_too_large", "an event of this stream is larger than all that is kept of one").never_retry()
        }
        StreamTrouble::Cancelled => {
            row(Api, "stream_cancelled", "the stream was called off, or nobody read it for too long").never_retry()
        }
        StreamTrouble::Lost => {
            row(Api, "stream_lost", "the gateway restarted while this stream was answered; what follows is lost")
                .never_retry()
        }
        StreamTrouble::Elsewhere => row(
            Overloaded,
            "stream_elsewhere",
            "the stream is still produced by the process that this one took over from; read it to its end where you read it, or come back when it has ended",
        )
        .after(Duration::from_secs(2)),
        StreamTrouble::Budget => row(
            Overloaded,
            "streams_budget_spent",
            "Tidegate holds as much of resumable streams as it may; try again shortly, or without tidegate-resume",
        )
        .after(Duration::from_secs(1)),
        StreamTrouble::LogBudget => row(
            Overloaded,
            "streams_budget_spent",
            "durable streams that still run take as much of the conversation log as they may; try again shortly, or \
             with `tidegate-resume: memory`",
        )
        .after(Duration::from_secs(5)),
    }
}

pub(super) fn handshake(refused: Refused) -> Answer {
    let kind = if refused == Refused::Origin { Permission } else { InvalidRequest };
    let code = if refused == Refused::Origin { "origin_not_allowed" } else { "invalid_upgrade" };
    let status = refused.status();
    let row = row(kind, code, refused.to_string()).status(status);
    Answer { allow: (status == 405).then_some("GET"), upgrade: status == 426, ..row }
}
