//! The rows of the table for conversations: what their turns can meet.

use super::{Answer, row};
use crate::memory::TurnTrouble;
use std::time::Duration;
use tidegate_store::StoreError;
use tidegate_wire::error::ErrorType::*;

pub(super) fn answer(trouble: &TurnTrouble) -> Answer {
    match trouble {
        TurnTrouble::Off => row(
            InvalidRequest,
            "conversations_off",
            "this Tidegate keeps no conversations; its operator has to give it a file ([conversations] file, or --conversations)",
        ),
        TurnTrouble::Own => row(
            Permission,
            "conversations_need_key",
            "conversations belong to the tenant of a Tidegate client key; with an upstream credential of your own there are none",
        ),
        TurnTrouble::Unknown => row(NotFound, "conversation_not_found", "there is no such conversation or turn"),
        TurnTrouble::BadId(why) => row(InvalidRequest, "invalid_conversation_id", why.clone()),
        TurnTrouble::Diverged(divergence) => row(
            Conflict,
            "conversation_diverged",
            format!("{divergence}; send only what is new, or the history as it is stored, or use another conversation"),
        )
        .never_retry(),
        TurnTrouble::Number { expected, next } => row(
            Conflict,
            "turn_conflict",
            format!("tidegate-turn says {expected}, and the conversation goes on with turn {next}"),
        )
        .never_retry(),
        TurnTrouble::Busy => {
            row(Conflict, "conversation_busy", "another turn of this conversation is under way").never_retry()
        }
        TurnTrouble::Interrupted { number } => row(
            Conflict,
            "turn_interrupted",
            format!(
                "turn {number} was interrupted, and what was passed on of it is kept; go on with turn {}",
                number + 1
            ),
        )
        .never_retry(),
        TurnTrouble::NothingNew => row(
            InvalidRequest,
            "nothing_new",
            "messages repeats what is stored and adds nothing; send the next turn, or tidegate-turn with the number of the one you want again",
        ),
        TurnTrouble::Messages(why) => row(InvalidRequest, "invalid_messages", why.clone()),
        TurnTrouble::Invalid { open_calls: 0, broken } => {
            row(InvalidRequest, "invalid_turn", format!("with what is stored the request would not be valid: {broken}"))
        }
        TurnTrouble::Invalid { open_calls, broken } => row(
            InvalidRequest,
            "invalid_turn",
            format!(
                "the conversation's last answer calls tools, and {open_calls} of its calls have no tool_result at the beginning of messages: {broken}"
            ),
        ),
        TurnTrouble::TooLarge(why) => row(InvalidRequest, "window_too_small", why.clone()),
        TurnTrouble::Budget => row(
            Overloaded,
            "conversations_budget_spent",
            "the conversations in use take as much memory as they may; try again shortly",
        )
        .after(Duration::from_secs(1)),
        TurnTrouble::Query(why) => row(InvalidRequest, "invalid_query", why.clone()),
        TurnTrouble::Line { line, error, added } => at_line(*line, error, *added),
        TurnTrouble::Given => row(
            Overloaded,
            "draining",
            "this Tidegate has handed over to another process; ask again on a new connection",
        )
        .after(Duration::from_secs(1)),
        TurnTrouble::Exports => {
            row(Overloaded, "exports_busy", "as many exports are under way as may; try again when one has ended")
                .after(Duration::from_secs(10))
        }
        TurnTrouble::Vault(error) => row(
            Api,
            "vault_unreadable",
            format!("what was masked in this conversation cannot be restored: {error}; its operator has to configure the keys it was kept under"),
        )
        .never_retry(),
        TurnTrouble::Log(error) => log(error),
    }
}

/// An import's line that cannot be taken.
fn at_line(line: u64, error: &StoreError, added: u64) -> Answer {
    let told = |why: &dyn std::fmt::Display| format!("line {line}: {why}; {added} lines before it were added and stay");
    match error {
        StoreError::Exists => row(Conflict, "conversation_exists", told(error)).never_retry(),
        StoreError::Conflict { .. } => row(Conflict, "turn_conflict", told(error)).never_retry(),
        StoreError::TooLarge { .. } => row(InvalidRequest, "conversation_too_large", told(error)),
        StoreError::NotFound => row(
            InvalidRequest,
            "invalid_line",
            told(&"it is about a conversation or turn of which no line came before"),
        ),
        _ => row(InvalidRequest, "invalid_line", told(error)),
    }
}

/// The log's own troubles. What they are about is the operator's; nothing that was acknowledged is lost.
fn log(error: &StoreError) -> Answer {
    match error {
        StoreError::TooLarge { .. } => row(InvalidRequest, "conversation_too_large", error.to_string()),
        StoreError::Exists => {
            row(Conflict, "conversation_exists", "there is a conversation of that id already").never_retry()
        }
        StoreError::AtLine { .. } => row(InvalidRequest, "invalid_messages", error.to_string()),
        StoreError::DiskFull => row(Api, "conversation_log_full", error.to_string()).never_retry(),
        StoreError::ReadOnly => row(Api, "conversation_log_read_only", error.to_string()).never_retry(),
        StoreError::Overloaded | StoreError::Busy | StoreError::StreamsFull { .. } => {
            row(Overloaded, "conversation_log_busy", error.to_string()).after(Duration::from_secs(1))
        }
        // Paths and the disk's own words are for the log, not for clients.
        _ => row(Api, "conversation_log_failed", "the conversation log failed; its operator has to look at it")
            .never_retry(),
    }
}
