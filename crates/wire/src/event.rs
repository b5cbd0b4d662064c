//! What one event of a Messages stream is, seen by a proxy.
//!
//! [`Tap`] watches a stream go by: which kind each event is, when content begins, what usage says,
//! whether the end came. Nearly every event is a `content_block_delta` in one exact shape; that
//! shape is recognised by its prefix and checked without building anything. Everything else takes
//! the slow way through the JSON parser. An event whose JSON is broken is never called good: a
//! client's parser would stumble over it.

use crate::error::ErrorBody;
use crate::foreign;
use crate::raw::RawObject;
use crate::sse;
use crate::usage::Usage;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `message_start`
    MessageStart,
    /// `content_block_start`
    BlockStart,
    /// `content_block_delta`
    BlockDelta,
    /// `content_block_stop`
    BlockStop,
    /// `message_delta`
    MessageDelta,
    /// `message_stop`
    MessageStop,
    /// `ping`
    Ping,
    /// `error`
    Error,
    /// A comment, or an event without data: nothing a client acts on.
    Comment,
    /// A type newer than this code; passed on as it is.
    Other,
}

impl Kind {
    /// The kind of the event type `name`.
    pub fn of_name(name: &[u8]) -> Kind {
        match name {
            b"message_start" => Kind::MessageStart,
            b"content_block_start" => Kind::BlockStart,
            b"content_block_delta" => Kind::BlockDelta,
            b"content_block_stop" => Kind::BlockStop,
            b"message_delta" => Kind::MessageDelta,
            b"message_stop" => Kind::MessageStop,
            b"ping" => Kind::Ping,
            b"error" => Kind::Error,
            _ => Kind::Other,
        }
    }

    /// Whether an answer's content has begun once this was forwarded: from here on the request
    /// cannot be sent again without the client noticing.
    pub fn is_content(self) -> bool {
        !matches!(self, Kind::MessageStart | Kind::Ping | Kind::Comment | Kind::Error)
    }

    /// Whether what it says is a model's.
    pub fn is_a_models(self) -> bool {
        matches!(self, Kind::BlockStart | Kind::BlockDelta)
    }

    /// Whether it shows that the model makes progress (the progress clock's event).
    pub fn is_progress(self) -> bool {
        !matches!(self, Kind::Ping | Kind::Comment)
    }
}

/// Why a stream cannot be trusted any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotten {
    /// An event's data is not the JSON it should be.
    Json,
    /// An event came where none may: content before `message_start`, or a second one.
    Order,
}

/// What has been seen of one upstream stream.
#[derive(Clone, Debug, Default)]
pub struct Tap {
    /// Usage so far.
    pub usage: Usage,
    /// The message's id, once `message_start` came.
    pub message_id: Option<Box<str>>,
    /// The last `stop_reason`.
    pub stop_reason: Option<Box<str>>,
    /// What an `error` event said.
    pub error: Option<Box<ErrorBody>>,
    /// Whether `message_stop` came.
    pub stopped: bool,
    /// Events of all kinds.
    pub events: u64,
    /// How often the upstream counted its output, in `message_delta`.
    pub counts: u64,
    /// Whether `message_start` counts everything that it does in the API.
    pub begins_counted: bool,
    /// The last event as the API writes it, where it was written otherwise: without its name, by
    /// which SDKs know events, or under one for all. Taken by whoever passes it on.
    pub rewritten: Option<Vec<u8>>,
}

/// How streams of another API end.
const DONE: &[u8] = b"[DONE]";
const STOP: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

const DELTA: &[u8] = b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":";

/// A delta in the one shape the API writes: its block index, its type, and the text of its one
/// string field as it stands between the quotes, escapes and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainDelta<'a> {
    /// The digits of the block's index.
    pub index: &'a [u8],
    /// `text_delta`, `thinking_delta` or `input_json_delta`, with its field's opening.
    pub opening: &'static [u8],
    /// The field's value, still escaped.
    pub text: &'a [u8],
}

/// What ends a plain delta, from its text's closing quote on.
const CLOSING: &[u8] = b"\"}}\n\n";

impl PlainDelta<'_> {
    /// The event it was read from, byte for byte, in the order they stand in.
    pub fn event(&self) -> [&[u8]; 5] {
        [DELTA, self.index, self.opening, self.text, CLOSING]
    }
}

/// What a plain delta's field can be opened by: text, thinking, a tool's input.
pub const OPENINGS: [&[u8]; 3] = [
    b",\"delta\":{\"type\":\"text_delta\",\"text\":\"",
    b",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"",
    b",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"",
];

/// Reads `event` as a plain delta, if it is one: the exact shape, around the inside of a JSON string.
pub fn plain_delta(event: &[u8]) -> Option<PlainDelta<'_>> {
    let rest = event.strip_prefix(DELTA)?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    // JSON numbers have no leading zero; no stream has a million blocks.
    if digits == 0 || digits > 6 || (rest[0] == b'0' && digits > 1) {
        return None;
    }
    let (index, rest) = rest.split_at(digits);
    let (opening, rest) = OPENINGS.into_iter().find_map(|o| rest.strip_prefix(o).map(|r| (o, r)))?;
    let text = rest.strip_suffix(CLOSING)?;
    is_inside_of_string(text).then_some(PlainDelta { index, opening, text })
}

/// What a delta is about, from two letters of its type: by how much its frame is longer than that of
/// a `text_delta`, and whether it is output that was produced there (a signature is not).
fn frame(letters: &[u8]) -> Option<usize> {
    match letters {
        b"te" => Some(OPENINGS[0].len()),
        b"th" => Some(OPENINGS[1].len()),
        b"in" => Some(OPENINGS[2].len()),
        _ => None,
    }
}

/// How much output a whole `content_block_delta` event carries, in twelfths of a token: four bytes
/// of ASCII are a token, three of anything else. Made for every event that goes by: of the shape the API
/// writes it is told from its length and two places in it, and only another shape is parsed.
pub fn output_twelfths(event: &[u8]) -> u32 {
    // One digit of index; with two, the letters are elsewhere by one.
    const TYPE_AT: usize = DELTA.len() + 1 + b",\"delta\":{\"type\":\"".len();
    let letters = |at: usize| event.get(at..at + 2).and_then(frame);
    let Some(text_at) =
        letters(TYPE_AT).map(|f| DELTA.len() + 1 + f).or_else(|| letters(TYPE_AT + 1).map(|f| DELTA.len() + 2 + f))
    else {
        return output_twelfths_slowly(event);
    };
    let bytes = event.len().saturating_sub(text_at + CLOSING.len());
    twelfths(bytes, event.get(text_at).copied())
}

fn twelfths(bytes: usize, first: Option<u8>) -> u32 {
    let each = if first.is_some_and(|b| b >= 0x80) { 4 } else { 3 };
    u32::try_from(bytes).unwrap_or(u32::MAX).saturating_mul(each)
}

/// The same of an event with other spaces, another order, or no name; a signature and a citation are no
/// output that is counted.
#[cold]
fn output_twelfths_slowly(event: &[u8]) -> u32 {
    let Some(data) = sse::parts(event).data else { return 0 };
    let Ok(object) = RawObject::read(&data) else { return 0 };
    let Some(delta) = object.parse::<RawObject<'_>>("delta") else { return 0 };
    let text = ["text", "thinking", "partial_json"].into_iter().find_map(|field| delta.get(field));
    let inside = text.and_then(|raw| raw.get().strip_prefix('"')?.strip_suffix('"')).unwrap_or_default();
    twelfths(inside.len(), inside.bytes().next())
}

/// Whether `text` may stand between JSON quotes as it is: UTF-8 without quote or control
/// character, every backslash the beginning of a whole escape (RFC 8259 section 7). With that the
/// quote that follows it is the closing one.
fn is_inside_of_string(text: &[u8]) -> bool {
    let (mut plain, mut bits) = (true, 0);
    for b in text {
        plain &= *b >= 0x20 && *b != b'"' && *b != b'\\';
        bits |= b;
    }
    (plain || has_whole_escapes(text)) && (bits.is_ascii() || std::str::from_utf8(text).is_ok())
}

fn has_whole_escapes(text: &[u8]) -> bool {
    let mut left = text;
    loop {
        left = match left {
            [] => return true,
            [b'\\', b'u', a, b, c, d, rest @ ..] if [a, b, c, d].iter().all(|h| h.is_ascii_hexdigit()) => rest,
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => rest,
            [b'\\' | b'"' | 0..0x20, ..] => return false,
            [_, rest @ ..] => rest,
        };
    }
}

/// What an `error` event says, in the API's words or another's.
fn error(data: &[u8]) -> Option<ErrorBody> {
    ErrorBody::read(data).or_else(|| foreign::read(200, data).map(|foreign| foreign.said))
}

impl Tap {
    /// A tap on a stream that has not begun.
    pub fn new() -> Self {
        Tap::default()
    }

    /// Whether `message_start` came.
    pub fn started(&self) -> bool {
        self.message_id.is_some()
    }

    /// Looks at one whole event.
    pub fn see(&mut self, event: &[u8]) -> Result<Kind, Rotten> {
        self.events += 1;
        self.rewritten = None;
        if plain_delta(event).is_some() {
            return if self.started() { Ok(Kind::BlockDelta) } else { Err(Rotten::Order) };
        }
        self.see_slowly(event)
    }

    /// The kind of an event whose `name` tells none: its type does, and becomes its name.
    fn kind_inside(&mut self, name: &[u8], object: &RawObject<'_>, data: &[u8]) -> Kind {
        let told = object.parse::<String>("type").unwrap_or_default();
        let kind = Kind::of_name(told.as_bytes());
        let is_plain = !told.is_empty() && told.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        // A type newer than this code under a name of its own is left as it is.
        if is_plain && (name.is_empty() || kind != Kind::Other) {
            // In JSON a line's end is white space, unless it is broken.
            let line: Vec<u8> = data.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect();
            let mut event = Vec::with_capacity(line.len() + 64);
            sse::write(&mut event, &told, &line);
            self.rewritten = Some(event);
        }
        kind
    }

    fn see_slowly(&mut self, event: &[u8]) -> Result<Kind, Rotten> {
        let parts = sse::parts(event);
        let Some(data) = parts.data else { return Ok(Kind::Comment) };
        if &*data == DONE && self.stop_reason.is_some() {
            // What came is whole, and its end is said in other words.
            (self.stopped, self.rewritten) = (true, Some(STOP.to_vec()));
            return Ok(Kind::MessageStop);
        }
        let object = RawObject::read(&data).map_err(|_| Rotten::Json)?;
        let kind = match Kind::of_name(parts.name) {
            Kind::Other => self.kind_inside(parts.name, &object, &data),
            kind => kind,
        };
        // Of another API, whatever its name: events of this one say their type inside as well.
        let foreign = kind == Kind::Other && object.get("type").is_none();
        let kind = match object.get("error") {
            Some(error) if foreign && error.get() != "null" => Kind::Error,
            _ if foreign && parts.name.is_empty() && foreign::read(200, &data).is_some() => Kind::Error,
            _ if foreign && !self.started() => return Err(Rotten::Order),
            _ => kind,
        };
        match kind {
            Kind::MessageStart => {
                if self.started() {
                    return Err(Rotten::Order);
                }
                let message: RawObject<'_> = object.parse("message").ok_or(Rotten::Json)?;
                self.message_id = Some(message.parse::<String>("id").unwrap_or_default().into());
                if let Some(usage) = message.get("usage") {
                    self.begins_counted = self.usage.update(usage.get()) == Some([true; 2]);
                }
            }
            Kind::MessageDelta => {
                if let Some(usage) = object.get("usage") {
                    let counts_output = self.usage.update(usage.get()).is_some_and(|[_, output]| output);
                    self.counts += u64::from(counts_output);
                }
                let delta: Option<RawObject<'_>> = object.parse("delta");
                if let Some(reason) = delta.and_then(|d| d.parse::<String>("stop_reason")) {
                    self.stop_reason = Some(reason.into());
                }
            }
            Kind::MessageStop => self.stopped = true,
            Kind::Error => self.error = Some(Box::new(error(&data).ok_or(Rotten::Json)?)),
            _ => {}
        }
        let early = !matches!(kind, Kind::MessageStart | Kind::Ping | Kind::Comment | Kind::Error | Kind::Other);
        if early && !self.started() {
            return Err(Rotten::Order);
        }
        Ok(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\n\n";

    fn delta(text: &str) -> String {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
        )
    }

    fn check(events: &[&str]) -> (Vec<Result<Kind, Rotten>>, Tap) {
        let mut tap = Tap::new();
        (events.iter().map(|e| tap.see(e.as_bytes())).collect(), tap)
    }

    #[test]
    fn a_whole_stream_is_understood() {
        let (kinds, tap) = check(&[
            START,
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{}}\n\n",
            &delta("hé"),
            &delta("a\\nb"),
            ": note\n\n",
            "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            "event: brand_new\ndata: {\"type\":\"brand_new\"}\n\n",
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":5}}\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        ]);
        use Kind::*;
        let want = [MessageStart, BlockStart, BlockDelta, BlockDelta, Comment, Ping, Other, MessageDelta, MessageStop];
        assert_eq!(kinds, want.map(Ok));
        assert_eq!(
            (tap.usage.input, tap.usage.output, tap.stop_reason.as_deref(), tap.stopped),
            (7, 5, Some("end_turn"), true)
        );
    }

    #[test]
    fn broken_json_is_never_called_good() {
        for text in ["a\"b", "tab\there", "bad\\escape\\x", "half\\", "\\ud8"] {
            assert_eq!(check(&[START, &delta(text)]).0[1], Err(Rotten::Json), "{text:?}");
        }
        let cut = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"ind\n\n";
        assert_eq!(check(&[START, cut]).0[1], Err(Rotten::Json));
        let mut tap = Tap::new();
        let mut bytes = delta("x").into_bytes();
        let at = bytes.iter().position(|b| *b == b'x').unwrap();
        bytes[at] = 0xff;
        tap.see(START.as_bytes()).unwrap();
        assert_eq!(tap.see(&bytes), Err(Rotten::Json));
    }

    #[test]
    fn order_is_watched_where_clients_break_on_it() {
        assert_eq!(check(&[&delta("x")]).0[0], Err(Rotten::Order));
        assert_eq!(check(&[START, START]).0[1], Err(Rotten::Order));
        assert_eq!(check(&["event: ping\ndata: {\"type\":\"ping\"}\n\n"]).0[0], Ok(Kind::Ping));
    }

    #[test]
    fn an_error_event_is_read() {
        let (kinds, tap) = check(&[
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n",
        ]);
        assert_eq!(kinds, [Ok(Kind::Error)]);
        assert_eq!(tap.error.unwrap().kind, "overloaded_error");
    }

    #[test]
    fn events_of_another_api_are_none_of_this_one() {
        let chunk = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[]}\n\n";
        assert_eq!(check(&[chunk]).0[0], Err(Rotten::Order));
        assert_eq!(check(&["data: [DONE]\n\n"]).0[0], Err(Rotten::Json));
        let (kinds, tap) =
            check(&[START, "data: {\"error\":{\"message\":\"slow\",\"code\":\"rate_limit_exceeded\"}}\n\n"]);
        assert_eq!(kinds[1], Ok(Kind::Error));
        assert_eq!(tap.error.unwrap().kind, "rate_limit_error");
        let (kinds, tap) = check(&[START, "data: {\"code\":503,\"msg\":\"busy\"}\n\n"]);
        assert_eq!((&kinds[1], &*tap.error.unwrap().message), (&Ok(Kind::Error), "busy"));
    }

    #[test]
    fn output_is_told_by_the_length_of_its_event() {
        let of = |opening: &[u8], index: &str, text: &str| {
            let event = [DELTA, index.as_bytes(), opening, text.as_bytes(), b"\"}}\n\n"].concat();
            output_twelfths(&event)
        };
        for opening in OPENINGS {
            assert_eq!((of(opening, "0", "four byte"), of(opening, "0", "")), (27, 0));
            assert_eq!((of(opening, "7", "港口"), of(opening, "12", "four")), (24, 12));
        }
        let spaced = "data: {\"type\": \"content_block_delta\", \"index\": 0, \"delta\": {\"text\": \"four\", \"type\": \"text_delta\"}}\n\n";
        assert_eq!(output_twelfths(spaced.as_bytes()), 12);
        assert_eq!(of(OPENINGS[0], "100", "four"), 12);
        let signature = b",\"delta\":{\"type\":\"signature_delta\",\"signature\":\"";
        assert_eq!(of(signature, "0", &"x".repeat(400)), 0);
        assert_eq!((output_twelfths(b""), output_twelfths(b"event: ping\ndata: {}\n\n")), (0, 0));
        let other = |delta: &str| {
            let data = format!("{{\"index\": 0, \"delta\": {delta}, \"type\": \"content_block_delta\"}}");
            output_twelfths(format!("event: content_block_delta\ndata: {data}\n\n").as_bytes())
        };
        assert_eq!(other("{\"type\": \"text_delta\", \"text\": \"four byte\"}"), 27);
        assert_eq!(other("{\"thinking\": \"港口\", \"type\": \"thinking_delta\"}"), 24);
        assert_eq!(other("{\"type\": \"input_json_delta\", \"partial_json\": \"four\"}"), 12);
        assert_eq!((other("{\"type\": \"signature_delta\", \"signature\": \"xxxxxxxxx\"}"), other("[]")), (0, 0));
    }

    #[test]
    fn a_stream_without_event_names_is_read_by_its_types_and_gets_them() {
        for named in ["", "event: message\n", "event: data\n"] {
            let nameless = START.replace("event: message_start\n", named);
            let (kinds, tap) = check(&[&nameless]);
            assert_eq!(kinds, [Ok(Kind::MessageStart)]);
            assert_eq!(tap.rewritten.as_deref(), Some(START.as_bytes()));
        }
        let (kinds, tap) = check(&[START, "data: {\"type\":\ndata: \"ping\"}\n\n"]);
        let want = &b"event: ping\ndata: {\"type\": \"ping\"}\n\n"[..];
        assert_eq!((&kinds[1], tap.rewritten.as_deref()), (&Ok(Kind::Ping), Some(want)));
        for as_it_is in [
            START,
            "event: brand_new\ndata: {\"type\":\"newer\"}\n\n",
            "data: {\"type\":\"a\\nevent: ping\"}\n\n",
            ": note\n\n",
        ] {
            let mut tap = Tap { message_id: (as_it_is != START).then(Box::default), ..Tap::default() };
            tap.see(as_it_is.as_bytes()).unwrap();
            assert_eq!(tap.rewritten, None, "{as_it_is}");
        }
    }

    #[test]
    fn the_end_may_be_said_in_another_apis_words_once_it_is_one() {
        let delta =
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n";
        let (kinds, tap) = check(&[START, delta, "data: [DONE]\n\n"]);
        assert_eq!((&kinds[2], tap.stopped), (&Ok(Kind::MessageStop), true));
        assert_eq!(
            Tap { message_id: Some("m".into()), ..Tap::new() }.see(&tap.rewritten.unwrap()),
            Ok(Kind::MessageStop)
        );
        assert_eq!(check(&[START, "data: [DONE]\n\n"]).0[1], Err(Rotten::Json), "nothing says that it is whole");
    }

    proptest::proptest! {
        /// fast(x) == slow(x): whatever the fast way accepts, the JSON parser reads the same.
        #[test]
        fn the_fast_way_agrees_with_the_parser(text in "([a-z\"\\\\é\u{1}]|\\\\n|\\\\\"|\"\\}\\}){0,12}") {
            let event = delta(&text);
            let data = sse::parts(event.as_bytes()).data.unwrap().into_owned();
            let slow: Option<String> = serde_json::from_slice::<serde_json::Value>(&data).ok()
                .and_then(|v| v["delta"]["text"].as_str().map(str::to_owned));
            let fast = plain_delta(event.as_bytes());
            if let Some(fast) = fast {
                let read: Option<String> = serde_json::from_slice(&[b"\"", fast.text, b"\""].concat()).ok();
                proptest::prop_assert_eq!(&read, &slow);
                proptest::prop_assert!(slow.is_some());
            }
            let mut tap = Tap::new();
            tap.see(START.as_bytes()).unwrap();
            proptest::prop_assert_eq!(tap.see(event.as_bytes()).is_ok(), serde_json::from_slice::<serde_json::Value>(&data).is_ok());
        }
    }
}
