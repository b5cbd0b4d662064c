//! The record of each request, as a line of the log.
//!
//! There is one for every request, so it is written without the detour through `tracing`, whose
//! events are visited field by field: that took a twentieth of a short answer's processor time. A
//! line looks like all others, as text or as JSON.

use crate::log::Lines;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use tidegate_observe::{Record, Records};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

const TARGET: &str = "tidegate::request";
/// Most lines are shorter.
const LINE_BYTES: usize = 768;

/// Writes records into the log.
pub(crate) struct RequestLog {
    pub(crate) lines: Lines,
    pub(crate) json: bool,
    /// Whether records of requests that went well are wanted, and those of others.
    pub(crate) info: bool,
    pub(crate) warn: bool,
}

#[derive(Serialize)]
struct JsonLine<'a> {
    timestamp: &'a str,
    level: &'static str,
    #[serde(flatten)]
    record: &'a Record<'a>,
    target: &'static str,
}

impl Records for RequestLog {
    fn write(&self, trouble: bool, record: &Record<'_>) {
        if !if trouble { self.warn } else { self.info } {
            return;
        }
        let mut line = String::with_capacity(LINE_BYTES);
        // Writing to a String does not fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut line));
        let level = if trouble { "WARN" } else { "INFO" };
        if self.json {
            let json = JsonLine { timestamp: &line, level, record, target: TARGET };
            line = serde_json::to_string(&json).unwrap_or_default();
        } else {
            text(&mut line, level, record);
        }
        line.push('\n');
        let _ = self.lines.clone().write_all(line.as_bytes());
    }
}

fn text(line: &mut String, level: &str, record: &Record<'_>) {
    line.push_str("  ");
    line.push_str(level);
    line.push(' ');
    line.push_str(TARGET);
    line.push(':');
    word(line, "request", record.request);
    word(line, "door", record.door);
    word(line, "tenant", record.tenant);
    word(line, "model", record.model);
    line.push_str(if record.stream { " stream=true" } else { " stream=false" });
    number(line, "status", record.status.into());
    word(line, "end", record.end);
    record.code.iter().for_each(|code| word(line, "code", code));
    number(line, "attempts", record.attempts.into());
    if record.mended > 0 {
        number(line, "mended", record.mended.into());
    }
    word(line, "upstream_key", record.upstream_key);
    word(line, "upstream_request_ids", record.upstream_request_ids);
    number(line, "waited_ms", record.waited_ms);
    record.first_byte_ms.iter().for_each(|ms| number(line, "first_byte_ms", *ms));
    number(line, "total_ms", record.total_ms);
    number(line, "events", record.events);
    number(line, "bytes", record.bytes);
    number(line, "input_tokens", record.input_tokens);
    number(line, "cache_read_tokens", record.cache_read_tokens);
    number(line, "cache_creation_tokens", record.cache_creation_tokens);
    number(line, "output_tokens", record.output_tokens);
    if record.input_estimated {
        line.push_str(" input_estimated=true");
    }
    if record.output_estimated {
        line.push_str(" output_estimated=true");
    }
    record.stop_reason.iter().for_each(|reason| word(line, "stop_reason", reason));
    if !record.detail.is_empty() {
        word(line, "detail", record.detail);
    }
}

fn name(line: &mut String, name: &str) {
    line.push(' ');
    line.push_str(name);
    line.push('=');
}

fn number(line: &mut String, named: &str, value: u64) {
    name(line, named);
    if value < 10 {
        line.push(char::from(b'0' + value as u8));
    } else {
        let _ = write!(line, "{value}");
    }
}

/// A quoted value. Clients choose some of them: what could end the quotes or the line is escaped.
fn word(line: &mut String, named: &str, value: &str) {
    name(line, named);
    if value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\') {
        line.push('"');
        line.push_str(value);
        line.push('"');
    } else {
        let _ = write!(line, "{value:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::LogThread;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn record(model: &str) -> Record<'_> {
        Record {
            request: "req_1",
            door: "messages",
            tenant: "acme",
            model,
            stream: true,
            status: 200,
            end: "answered",
            code: None,
            attempts: 1,
            mended: 0,
            upstream_key: "main/0",
            upstream_request_ids: "req_up",
            waited_ms: 0,
            first_byte_ms: Some(12),
            total_ms: 345,
            events: 6,
            bytes: 789,
            input_tokens: 1,
            cache_read_tokens: 0,
            cache_creation_tokens: 0,
            output_tokens: 40,
            output_estimated: false,
            input_estimated: false,
            stop_reason: Some("end_turn"),
            detail: "",
        }
    }

    fn written(json: bool, info: bool, trouble: bool, model: &str) -> String {
        let page = Page::default();
        let log = LogThread::start(page.clone()).unwrap();
        RequestLog { lines: log.lines(), json, info, warn: true }.write(trouble, &record(model));
        drop(log);
        let page = page.0.lock().unwrap();
        String::from_utf8(page.clone()).unwrap()
    }

    #[test]
    fn a_record_is_one_line_of_text() {
        let line = written(false, true, false, "claude-haiku-5-5");
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
        let want = " INFO tidegate::request: request=\"req_1\" door=\"messages\" tenant=\"acme\" model=\"claude-haiku-5-5\" stream=true status=200 end=\"answered\" attempts=1 upstream_key=\"main/0\" upstream_request_ids=\"req_up\" waited_ms=0 first_byte_ms=12 total_ms=345 events=6 bytes=789 input_tokens=1 cache_read_tokens=0 cache_creation_tokens=0 output_tokens=40 stop_reason=\"end_turn\"\n";
        assert_eq!(rest, want);
    }

    #[test]
    fn a_record_is_one_line_of_json() {
        let line = written(true, true, true, "m");
        let value: serde_json::Value = serde_json::from_str(line.trim_end()).unwrap();
        assert_eq!(
            (&value["level"], &value["target"], &value["total_ms"]),
            (&"WARN".into(), &TARGET.into(), &345.into())
        );
        assert!(value.get("code").is_none() && value["timestamp"].as_str().is_some_and(|t| t.ends_with('Z')));
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn what_is_so_of_few_requests_is_said_of_those() {
        let mended = Record { mended: 2, output_estimated: true, ..record("m") };
        let mut line = String::new();
        text(&mut line, "INFO", &mended);
        assert!(line.contains(" attempts=1 mended=2 "), "{line}");
        assert!(line.contains(" output_tokens=40 output_estimated=true "), "{line}");
        let json = serde_json::to_value(mended).unwrap();
        assert_eq!((&json["mended"], &json["output_estimated"]), (&2.into(), &true.into()));
        let json = serde_json::to_value(record("m")).unwrap();
        assert!(json.get("mended").is_none() && json.get("output_estimated").is_none());
    }

    #[test]
    fn a_name_of_the_clients_cannot_write_lines_of_its_own() {
        let line = written(false, true, false, "m\" end=\"answered\"\n2026 INFO fake");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains(r#"model="m\" end=\"answered\"\n2026 INFO fake""#), "{line}");
    }

    #[test]
    fn what_is_not_wanted_is_not_written() {
        assert_eq!(written(false, false, false, "m"), "");
        assert!(written(false, false, true, "m").contains("WARN"));
    }
}
