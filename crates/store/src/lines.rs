//! The lines of export and import, as `docs/formats/conversations.md` draws them.
//!
//! Messages stand in a line as the bytes they came as. Where those have a line break, or space at an
//! end, a line could not hold them unchanged: then they are in a JSON string under another name.

use crate::StoreError;
use crate::turn::{Conversation, Status, Summary, TokenCounts, Turn, TurnContent};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The version of the format.
const VERSION: u32 = 1;

/// A line that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Header,
    Conversation(Conversation),
    Turn { conversation: String, turn: Turn },
    Summary { conversation: String, summary: Summary },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine<'a> {
    #[serde(borrow)]
    tidegate: Cow<'a, str>,
    version: u32,
}

/// What a line is, whatever else it holds.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConversationLine<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    conversation: Cow<'a, str>,
    created_ms: u64,
    updated_ms: u64,
    turns: u32,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    parent: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent_turn: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TurnLine<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    conversation: Cow<'a, str>,
    number: u32,
    #[serde(borrow)]
    status: Cow<'a, str>,
    created_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end_user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_creation_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_read_tokens: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    request: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    request_text: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    answer: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    answer_text: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SummaryLine<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    conversation: Cow<'a, str>,
    first_turn: u32,
    last_turn: u32,
    created_ms: u64,
    model: String,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    body_text: Option<Cow<'a, str>>,
}

/// Bytes of JSON either as they are or as a string.
fn either(bytes: &[u8]) -> Result<(Option<&RawValue>, Option<Cow<'_, str>>), StoreError> {
    let stands_alone = !bytes.contains(&b'\n') && !bytes.contains(&b'\r');
    // RawValue leaves out space at the ends.
    let raw: Option<&RawValue> = if stands_alone { serde_json::from_slice(bytes).ok() } else { None };
    if let Some(raw) = raw.filter(|raw| raw.get().len() == bytes.len()) {
        return Ok((Some(raw), None));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| StoreError::Corrupt("a message is no text".to_owned()))?;
    Ok((None, Some(Cow::Borrowed(text))))
}

fn bytes_of(raw: Option<&RawValue>, text: Option<Cow<'_, str>>) -> Result<Option<Vec<u8>>, StoreError> {
    match (raw, text) {
        (Some(raw), None) => Ok(Some(raw.get().as_bytes().to_vec())),
        (None, Some(text)) => Ok(Some(text.into_owned().into_bytes())),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(StoreError::Invalid("a line says the same thing in two ways".to_owned())),
    }
}

fn write(out: &mut Vec<u8>, line: &impl Serialize) -> Result<(), StoreError> {
    serde_json::to_writer(&mut *out, line).map_err(|error| StoreError::Failed(error.to_string()))?;
    out.push(b'\n');
    Ok(())
}

/// Writes the first line of an export.
pub(crate) fn write_header(out: &mut Vec<u8>) -> Result<(), StoreError> {
    write(out, &HeaderLine { tidegate: "conversations".into(), version: VERSION })
}

/// Writes a conversation's line.
pub(crate) fn write_conversation(out: &mut Vec<u8>, conversation: &Conversation) -> Result<(), StoreError> {
    let parent = conversation.parent.as_ref();
    write(
        out,
        &ConversationLine {
            kind: "conversation".into(),
            conversation: (&conversation.name).into(),
            created_ms: conversation.created_ms,
            updated_ms: conversation.updated_ms,
            turns: conversation.turns,
            parent: parent.map(|(name, _)| name.into()),
            parent_turn: parent.map(|(_, turn)| *turn),
        },
    )
}

/// Writes a turn's line.
pub(crate) fn write_turn(out: &mut Vec<u8>, conversation: &str, turn: &Turn) -> Result<(), StoreError> {
    let content = &turn.content;
    let (request, request_text) = either(&content.request)?;
    let (answer, answer_text) = content.answer.as_deref().map_or(Ok((None, None)), either)?;
    let hex = |hash: &[u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect();
    write(
        out,
        &TurnLine {
            kind: "turn".into(),
            conversation: conversation.into(),
            number: turn.number,
            status: status_name(content.status).into(),
            created_ms: turn.created_ms,
            request_hash: content.request_hash.as_ref().map(hex),
            request_id: content.request_id.clone(),
            end_user: content.end_user.clone(),
            model: content.model.clone(),
            stop_reason: content.stop_reason.clone(),
            input_tokens: content.tokens.input,
            output_tokens: content.tokens.output,
            cache_creation_tokens: content.tokens.cache_creation,
            cache_read_tokens: content.tokens.cache_read,
            request,
            request_text,
            answer,
            answer_text,
        },
    )
}

/// Writes a summary's line.
pub(crate) fn write_summary(out: &mut Vec<u8>, conversation: &str, summary: &Summary) -> Result<(), StoreError> {
    let (body, body_text) = either(&summary.body)?;
    write(
        out,
        &SummaryLine {
            kind: "summary".into(),
            conversation: conversation.into(),
            first_turn: summary.first_turn,
            last_turn: summary.last_turn,
            created_ms: summary.created_ms,
            model: summary.model.clone(),
            body,
            body_text,
        },
    )
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Complete => "complete",
        Status::Interrupted => "interrupted",
        Status::Appended => "appended",
    }
}

/// Reads a line.
pub(crate) fn read(line: &[u8]) -> Result<Line, StoreError> {
    let kind: Kind<'_> = parse(line)?;
    match kind.kind.as_deref() {
        None => {
            let header: HeaderLine<'_> = parse(line)?;
            if header.tidegate != "conversations" || header.version != VERSION {
                return Err(StoreError::Invalid(format!("this build reads exports of version {VERSION}")));
            }
            Ok(Line::Header)
        }
        Some("conversation") => {
            let line: ConversationLine<'_> = parse(line)?;
            let parent = line.parent.map(Cow::into_owned).zip(line.parent_turn);
            let name = line.conversation.into_owned();
            let (created_ms, updated_ms, turns) = (line.created_ms, line.updated_ms, line.turns);
            Ok(Line::Conversation(Conversation { name, created_ms, updated_ms, turns, bytes: 0, parent }))
        }
        Some("turn") => read_turn(parse(line)?),
        Some("summary") => {
            let line: SummaryLine<'_> = parse(line)?;
            let body = bytes_of(line.body, line.body_text)?;
            let body = body.ok_or_else(|| StoreError::Invalid("a summary's line has no `body`".to_owned()))?;
            let (first_turn, last_turn, created_ms) = (line.first_turn, line.last_turn, line.created_ms);
            let summary = Summary { first_turn, last_turn, created_ms, model: line.model, body };
            Ok(Line::Summary { conversation: line.conversation.into_owned(), summary })
        }
        Some(_) => Err(StoreError::Invalid("a line's `type` is conversation, turn or summary".to_owned())),
    }
}

fn read_turn(line: TurnLine<'_>) -> Result<Line, StoreError> {
    let statuses = [Status::Complete, Status::Interrupted, Status::Appended];
    let status = statuses.into_iter().find(|status| status_name(*status) == line.status);
    let status =
        status.ok_or_else(|| StoreError::Invalid("`status` is complete, interrupted or appended".to_owned()))?;
    let request = bytes_of(line.request, line.request_text)?;
    let content = TurnContent {
        status,
        request: request.ok_or_else(|| StoreError::Invalid("a turn's line has no `request`".to_owned()))?,
        answer: bytes_of(line.answer, line.answer_text)?,
        request_hash: line.request_hash.as_deref().map(hash_of).transpose()?,
        request_id: line.request_id,
        end_user: line.end_user,
        model: line.model,
        stop_reason: line.stop_reason,
        tokens: TokenCounts {
            input: line.input_tokens,
            output: line.output_tokens,
            cache_creation: line.cache_creation_tokens,
            cache_read: line.cache_read_tokens,
        },
    };
    let turn = Turn { number: line.number, created_ms: line.created_ms, content };
    Ok(Line::Turn { conversation: line.conversation.into_owned(), turn })
}

fn hash_of(hex: &str) -> Result<[u8; 32], StoreError> {
    let wrong = || StoreError::Invalid("`request_hash` is 64 hexadecimal digits".to_owned());
    if hex.len() != 64 || !hex.is_ascii() {
        return Err(wrong());
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}

/// Says where a line is wrong, and never what it holds.
fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(line).map_err(|error| {
        let what = if error.is_data() { "has a field that is missing, unknown or wrong" } else { "is no JSON" };
        StoreError::Invalid(format!("the line {what}, at column {}", error.column()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(request: &str, answer: Option<&str>) -> Turn {
        let mut content = TurnContent::appended(request.as_bytes().to_vec());
        content.answer = answer.map(|answer| answer.as_bytes().to_vec());
        content.request_hash = Some([0xa7; 32]);
        content.end_user = Some("{\"device\":\"\u{1F30A}\"}".to_owned());
        content.tokens.cache_read = Some(u64::from(u32::MAX) * 2);
        Turn { number: 3, created_ms: 1_766_000_000_000, content }
    }

    #[test]
    fn a_turn_reads_back_byte_for_byte_in_one_line_however_its_json_is_spaced() {
        for request in ["[]", "[ {\"b\":1, \"a\":1.50} ]", "[\n  1\n]", " [1]", "[1]\r", "[\"\\u00e9 é\"]"] {
            let turn = turn(request, Some("{\"x\" : [ ] }"));
            let mut out = Vec::new();
            write_turn(&mut out, "c\"1", &turn).unwrap();
            assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "{request:?}");
            assert_eq!(read(&out).unwrap(), Line::Turn { conversation: "c\"1".to_owned(), turn });
        }
    }

    #[test]
    fn lines_that_are_wrong_are_refused_without_telling_their_text() {
        for line in [
            "",
            "[]",
            "{}",
            "{\"tidegate\":\"conversations\",\"version\":2}",
            "{\"tidegate\":\"conversations\",\"version\":1,\"new\":1}",
            "{\"type\":\"secret\"}",
            "{\"type\":\"turn\",\"conversation\":\"secret\",\"number\":1,\"status\":\"complete\",\"created_ms\":1}",
            "{\"type\":\"turn\",\"conversation\":\"secret\",\"number\":1,\"status\":\"odd\",\"created_ms\":1,\"request\":[]}",
            "{\"type\":\"turn\",\"conversation\":\"secret\",\"number\":1,\"status\":\"appended\",\"created_ms\":1,\"request\":[],\"secret\":1}",
            "{\"type\":\"turn\",\"conversation\":\"c\",\"number\":1,\"status\":\"appended\",\"created_ms\":1,\"request\":[],\"request_text\":\"[]\"}",
        ] {
            let refused = read(line.as_bytes()).unwrap_err();
            assert!(matches!(refused, StoreError::Invalid(_)), "{line}");
            assert!(!refused.to_string().contains("secret"), "{refused}");
        }
        assert_eq!(read(b"{\"tidegate\":\"conversations\",\"version\":1}\n"), Ok(Line::Header));
    }
}
