//! The one frame that is written thousands of times a second: an event of the upstream's, as it came.
//!
//! Its length is known before it is written, so it goes straight behind its WebSocket head into the
//! connection's buffer, the event's bytes copied once and nothing allocated.

use crate::dialect::NotAFrame;
use crate::raw::RawObject;
use crate::websocket::{FRAME_HEAD_BYTES_MAX, Opcode, frame_head, mask};
use bytes::{BufMut, BytesMut};
use std::borrow::Cow;

/// Where an event stands in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventPlace<'a> {
    /// The client's name for the stream.
    pub id: &'a str,
    /// The first number it stands for; less than `seq` if deltas were joined.
    pub first_seq: u64,
    /// The last.
    pub seq: u64,
    /// Where a reader who has it goes on, of a stream that can be resumed. It needs no escapes.
    pub cursor: Option<&'a str>,
}

const OPENING: &str = "{\"type\":\"stream.event\",\"id\":\"";
const FIRST_SEQ: &str = "\",\"first_seq\":";
const SEQ: &str = ",\"seq\":";
const CURSOR: [&str; 2] = [",\"cursor\":\"", "\""];
const EVENT: [&str; 2] = [",\"event\":", "}"];

/// Writes a `stream.event` with its WebSocket head; `event` is the event's JSON.
pub fn write_event(out: &mut BytesMut, place: &EventPlace<'_>, event: &[u8], key: Option<[u8; 4]>) {
    let mut digits = [[0; 20]; 2];
    let [first, last] = &mut digits;
    let (first, last) = (decimal(first, place.first_seq), decimal(last, place.seq));
    let cursor = place.cursor.map_or(["", "", ""], |cursor| [CURSOR[0], cursor, CURSOR[1]]);
    let [before, cursor, after] = cursor.map(str::as_bytes);
    let parts = [
        OPENING.as_bytes(),
        place.id.as_bytes(),
        FIRST_SEQ.as_bytes(),
        first,
        SEQ.as_bytes(),
        last,
        before,
        cursor,
        after,
        EVENT[0].as_bytes(),
        event,
        EVENT[1].as_bytes(),
    ];
    let length = parts.iter().map(|part| part.len()).sum();
    out.reserve(FRAME_HEAD_BYTES_MAX + length);
    frame_head(out, Opcode::Text, true, length, key);
    let at = out.len();
    parts.iter().for_each(|part| out.put_slice(part));
    if let Some(key) = key {
        mask(&mut out[at..], key, 0);
    }
}

fn decimal(digits: &mut [u8; 20], mut n: u64) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &digits[at..];
        }
    }
}

/// The type of an event that begins with it, as the API writes them.
fn plain_type(event: &str) -> Option<&str> {
    let rest = event.strip_prefix("{\"type\":\"")?;
    let end = rest.bytes().position(|b| !(b.is_ascii_lowercase() || b == b'_'))?;
    (end > 0 && rest.as_bytes()[end] == b'"').then(|| &rest[..end])
}

/// Writes an event that came in a frame as one of Server-Sent Events, the form in which everything
/// behind a connection reads it. Line ends between its tokens become spaces.
pub fn write_sse(out: &mut BytesMut, event: &str) -> Result<(), NotAFrame> {
    let name = match plain_type(event) {
        Some(name) => Cow::Borrowed(name),
        None => {
            let name = RawObject::read(event.as_bytes()).ok().and_then(|object| object.parse::<String>("type"));
            Cow::Owned(name.ok_or(NotAFrame("holds an event without a type"))?)
        }
    };
    if name.chars().any(char::is_control) {
        return Err(NotAFrame("holds an event of a type that is no name"));
    }
    out.reserve(name.len() + event.len() + 16);
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\ndata: ");
    let at = out.len();
    out.put_slice(event.as_bytes());
    // Inside a string they would be escaped.
    if memchr::memchr2(b'\r', b'\n', event.as_bytes()).is_some() {
        out[at..].iter_mut().filter(|b| matches!(b, b'\r' | b'\n')).for_each(|b| *b = b' ');
    }
    out.put_slice(b"\n\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse;
    use crate::websocket::{Event, MessageReader, ReadRules, Role};

    fn read(mut frame: BytesMut, role: Role) -> String {
        let rules = ReadRules { role, frame_bytes_max: 1 << 20, message_bytes_max: 1 << 20 };
        match MessageReader::new(rules).step(&mut frame).unwrap().event {
            Some(Event::Text(text)) => text.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_event_is_embedded_as_it_came() {
        let event = "{\"type\":\"ping\",\n \"x\": 1.50}";
        let place = EventPlace { id: "a1", first_seq: 9, seq: 10, cursor: None };
        let mut out = BytesMut::new();
        write_event(&mut out, &place, event.as_bytes(), None);
        let want = format!(r#"{{"type":"stream.event","id":"a1","first_seq":9,"seq":10,"event":{event}}}"#);
        assert_eq!(read(out, Role::Client), want);
        let mut out = BytesMut::new();
        write_event(&mut out, &EventPlace { cursor: Some("c:1"), ..place }, event.as_bytes(), Some([7; 4]));
        assert_eq!(read(out, Role::Server), want.replace(",\"event\":", ",\"cursor\":\"c:1\",\"event\":"));
    }

    #[test]
    fn an_event_becomes_one_of_a_stream_of_events() {
        let check = |event: &str| {
            let mut out = BytesMut::new();
            write_sse(&mut out, event).map(|()| String::from_utf8(out.to_vec()).unwrap())
        };
        let text = r#"{"type":"content_block_delta","index":0}"#;
        assert_eq!(check(text).unwrap(), format!("event: content_block_delta\ndata: {text}\n\n"));
        let wide = check("{\n\"x\":1,\r\n\"type\" : \"brand_new\"}").unwrap();
        let parts = sse::parts(wide.as_bytes());
        assert_eq!(parts.name, b"brand_new");
        assert_eq!(parts.data.unwrap(), br#"{ "x":1,  "type" : "brand_new"}"#.as_slice());
        for bad in ["{}", "[]", r#"{"type":3}"#, r#"{"type":"a\nb"}"#] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_place_is_told_in_digits(first_seq: u64, seq: u64) {
            let mut out = BytesMut::new();
            write_event(&mut out, &EventPlace { id: "a", first_seq, seq, cursor: None }, b"{}", None);
            let json: serde_json::Value = serde_json::from_str(&read(out, Role::Client)).unwrap();
            proptest::prop_assert_eq!((json["first_seq"].as_u64(), json["seq"].as_u64()), (Some(first_seq), Some(seq)));
        }
    }
}
