//! Restoring in a stream, whatever way it is cut.
//!
//! R1: the output is that of the whole text, for every cut. R2: what is held is less than a token, or
//! for one in another dress less than its longest dress. R3: what has no token passes as it is, at once.

use proptest::prelude::*;
use std::sync::Arc;
use tidegate_redact::detect::Scratch;
use tidegate_redact::kind::KINDS;
use tidegate_redact::mask::{Filter, Scopes};
use tidegate_redact::restore::{self, Escape, HELD_BYTES_MAX, Ladder, Live, StreamRestorer, TextRestorer};
use tidegate_redact::rules::{Policy, Rules};
use tidegate_redact::token::{TOKEN_BYTES, Token};
use tidegate_redact::vault::{KeyRing, ScopeKey, Vault};
use tidegate_wire::sse::{self, Splitter};

/// Values with everything that needs an escape; the last one is a pattern of the operator's.
const VALUES: [&str; 4] = ["13800138000", "bob@example.com", "a\"b\\c\nd", "６２２２ 0212"];

fn vault(scope: &str) -> (Vault, Vec<Token>) {
    let mut rules = Rules::all(Policy::Mask);
    rules.policies = [Policy::Off; KINDS];
    rules.policies[tidegate_redact::kind::Kind::Custom.index()] = Policy::Mask;
    let pattern = |regex: &str| tidegate_redact::detect::Pattern { name: "v".to_owned(), regex: regex.to_owned() };
    rules.looking.patterns = vec![pattern(r"(?s)<(.*?)>")];
    let filter = Filter::new(rules).expect("a filter");
    let mut vault = Vault::new(ScopeKey::derive(&[1; 32], scope, None));
    for value in VALUES {
        let text = format!("<{value}>");
        let mut scopes = Scopes { own: &mut vault, shared: None };
        filter.mask_text(&text, Some(&mut scopes), &mut Scratch::default()).expect("masked");
    }
    let tokens = VALUES.iter().map(|value| vault.known(&format!("<{value}>")).expect("a token")).collect();
    (vault, tokens)
}

fn value(number: usize) -> String {
    format!("<{}>", VALUES[number])
}

fn run(live: &Live, escape: Escape, ladder: Ladder, pieces: &[&str]) -> (String, usize) {
    let mut restorer = TextRestorer::new(escape, ladder);
    let (mut out, mut held) = (Vec::new(), 0);
    for piece in pieces {
        restorer.feed(live, piece.as_bytes(), &mut out);
        held = held.max(restorer.held());
    }
    restorer.finish(&mut out);
    (String::from_utf8(out).expect("text"), held)
}

/// Characters, and escapes as a whole: where the inside of a JSON string may be cut.
fn units(text: &str, escape: Escape) -> Vec<&str> {
    let mut units = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let bytes = match first {
            '\\' if escape != Escape::Plain && rest.as_bytes().get(1) == Some(&b'u') => 6,
            '\\' if escape != Escape::Plain => 2,
            c => c.len_utf8(),
        };
        let (unit, after) = rest.split_at(bytes.min(rest.len()));
        units.push(unit);
        rest = after;
    }
    units
}

/// Ways in which a token comes back.
fn dress(token: Token, way: usize) -> String {
    let t = token.as_str();
    match way {
        0 | 1 => t.to_owned(),
        2 => t.to_ascii_lowercase(),
        3 => format!("{} {}", &t[..4], &t[4..]),
        4 => format!("**{}**", t),
        5 => t.chars().map(|c| char::from_u32(c as u32 + 0xFEE0).unwrap_or(c)).collect(),
        6 => format!("{}\u{200b}{}", &t[..7], &t[7..]),
        7 => t[..7].to_owned(),
        _ => format!("{}X", &t[..9]),
    }
}

fn dressed() -> impl Strategy<Value = Vec<(usize, usize, String)>> {
    prop::collection::vec((0usize..5, 0usize..9, "[ a-zZQ.,一é*_]{0,6}"), 0..6)
}

#[test]
fn exact_tokens_are_restored_and_foreign_ones_are_not() {
    let (vault, tokens) = vault("a");
    let (_, foreign) = self::vault("b");
    let live = Live::of([&vault]);
    let text = format!("call {:?}s, {:?}; x{:?}", tokens[0], foreign[0], tokens[1]);
    let want = format!("call {}s, {:?}; x{}", value(0), foreign[0], value(1));
    assert_eq!(run(&live, Escape::Plain, Ladder::Exact, &[&text]).0, want);
    assert_eq!(run(&Live::default(), Escape::Plain, Ladder::Normalised, &[&text]).0, text);
}

#[test]
fn the_ladder_has_its_rungs_and_no_more() {
    let (vault, tokens) = vault("a");
    let live = Live::of([&vault]);
    let t = tokens[0].as_str();
    for way in 0..7 {
        let text = format!("say {}.", dress(tokens[0], way));
        let want = format!("say {}.", if way == 4 { format!("**{}**", value(0)) } else { value(0) });
        assert_eq!(run(&live, Escape::Plain, Ladder::Normalised, &[&text]).0, want, "way {way}");
        let exact = run(&live, Escape::Plain, Ladder::Exact, &[&text]).0;
        assert_eq!(exact == text, matches!(way, 2 | 3 | 5 | 6), "way {way}");
    }
    let escaped: String = t.chars().map(|c| format!("\\u{:04x}", c as u32)).collect();
    assert_eq!(run(&live, Escape::Json, Ladder::Normalised, &[&escaped]).0, value(0));
    // A letter that is wrong or missing, another token's check letter: left as it is.
    for text in [format!("{}B", &t[..9]).replace(t, ""), t[..9].to_owned(), format!("{}{}", &t[..5], &t[6..])] {
        assert_eq!(run(&live, Escape::Plain, Ladder::Normalised, &[&text]).0, text);
    }
    let glued = format!("x{}", t.to_ascii_lowercase());
    assert_eq!(run(&live, Escape::Plain, Ladder::Normalised, &[&glued]).0, glued);
}

#[test]
fn values_are_escaped_for_where_they_stand() {
    let (vault, tokens) = vault("a");
    let live = Live::of([&vault]);
    let text = tokens[2].as_str();
    let json = run(&live, Escape::Json, Ladder::Exact, &[text]).0;
    assert_eq!(serde_json::from_str::<String>(&format!("\"{json}\"")).expect("JSON"), value(2));
    let nested = run(&live, Escape::Nested, Ladder::Exact, &[&format!(r#"{{\"a\":\"{text}\"}}"#)]).0;
    let inner: String = serde_json::from_str(&format!("\"{nested}\"")).expect("JSON");
    let input: serde_json::Value = serde_json::from_str(&inner).expect("JSON inside");
    assert_eq!(input["a"], value(2));
}

#[test]
fn in_a_tools_input_the_inner_escapes_are_seen_through_however_they_are_cut() {
    let (vault, tokens) = vault("a");
    let live = Live::of([&vault]);
    let t = tokens[0].as_str();
    let letters = |escape: &str| -> String { t.chars().map(|c| format!("{escape}{:04x}", c as u32)).collect() };
    // A line's end and a backslash inside the inner string, and each letter an escape of it.
    let broken = |sign: &str| [&t[..5], sign, &t[5..]].concat();
    for dressed in [broken(r"\\n"), broken(r"\\\\"), letters(r"\\u")] {
        let text = format!(r#"{{\"a\":\"x {dressed}, y\"}}"#);
        let want = format!(r#"{{\"a\":\"x {}, y\"}}"#, value(0));
        assert_eq!(run(&live, Escape::Nested, Ladder::Normalised, &[&text]).0, want);
        let units = units(&text, Escape::Nested);
        for cut in 0..units.len() {
            let (head, tail) = (units[..cut].concat(), units[cut..].concat());
            assert_eq!(run(&live, Escape::Nested, Ladder::Normalised, &[&head, &tail]).0, want, "{cut}");
        }
        let (out, held) = run(&live, Escape::Nested, Ladder::Normalised, &units);
        assert!(out == want && held <= HELD_BYTES_MAX, "{held}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r1_and_r2_every_cut_gives_the_same(parts in dressed(), json in any::<bool>()) {
        let (vault, tokens) = vault("a");
        let (_, foreign) = self::vault("b");
        let live = Live::of([&vault]);
        let all: Vec<Token> = tokens.iter().chain(&foreign[..1]).copied().collect();
        let text: String = parts.iter().map(|(n, way, between)| dress(all[*n], *way) + between).collect();
        let escape = if json { Escape::Json } else { Escape::Plain };
        let text = if json { text.replace('é', "\\n").replace('.', "\\u005a").replace(',', "\\\\n") } else { text };
        for ladder in [Ladder::Exact, Ladder::Normalised] {
            let (whole, _) = run(&live, escape, ladder, &[&text]);
            let units = units(&text, escape);
            for cut in 0..=units.len() {
                let (a, b) = (units[..cut].concat(), units[cut..].concat());
                let (out, held) = run(&live, escape, ladder, &[&a, &b]);
                prop_assert_eq!(&out, &whole, "cut at {} of {:?}", cut, &text);
                let most = if ladder == Ladder::Exact { TOKEN_BYTES - 1 } else { HELD_BYTES_MAX };
                prop_assert!(held <= most, "{held} held");
            }
            prop_assert_eq!(&run(&live, escape, ladder, &units).0, &whole, "one by one");
        }
    }

    #[test]
    fn r1_exact_tokens_are_replaced_and_nothing_else(parts in prop::collection::vec((0usize..4, "[ a-y.,一é*_0-9]{1,8}"), 0..8)) {
        let (vault, tokens) = vault("a");
        let text: String = parts.iter().map(|(n, between)| format!("{}{between}", tokens[*n].as_str())).collect();
        let want: String = parts.iter().map(|(n, between)| format!("{}{between}", value(*n))).collect();
        prop_assert_eq!(run(&Live::of([&vault]), Escape::Plain, Ladder::Normalised, &[&text]).0, want);
    }

    #[test]
    fn r3_text_without_a_beginning_of_a_token_is_never_held(pieces in prop::collection::vec("[a-yA-Y0-9 .,一é\\\\\"]{0,9}", 0..8)) {
        let (vault, _) = vault("a");
        let live = Live::of([&vault]);
        let mut restorer = TextRestorer::new(Escape::Plain, Ladder::Normalised);
        for piece in &pieces {
            let mut out = Vec::new();
            restorer.feed(&live, piece.as_bytes(), &mut out);
            prop_assert_eq!(String::from_utf8(out).expect("text"), piece.as_str());
        }
    }
}

fn delta(index: u32, kind: &str, field: &str, text: &str) -> String {
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{{\"type\":\"{kind}\",\"{field}\":\"{text}\"}}}}\n\n"
    )
}

fn stop(index: u32) -> String {
    format!("event: content_block_stop\ndata: {{\"type\":\"content_block_stop\",\"index\":{index}}}\n\n")
}

/// Runs a stream through; the restored text of each field, and all bytes.
fn stream(live: Live, events: &[String]) -> (Vec<(String, String)>, String) {
    let mut restorer = StreamRestorer::new(Arc::new(live));
    let mut out = Vec::new();
    for event in events {
        restorer.event(event.as_bytes(), &mut out);
    }
    restorer.finish(&mut out);
    assert_eq!(restorer.held(), 0);
    let mut texts: Vec<(String, String)> = Vec::new();
    let mut splitter = Splitter::new();
    let fed = splitter.feed(&out, |event| {
        let data = sse::parts(event).data.expect("data");
        let json: serde_json::Value = serde_json::from_slice(&data).expect("every event is JSON");
        for (field, text) in json["delta"].as_object().into_iter().flatten().filter(|(field, _)| *field != "type") {
            let key = format!("{} {field}", json["index"]);
            let text = text.as_str().unwrap_or_default();
            match texts.iter_mut().find(|(known, _)| *known == key) {
                Some((_, all)) => all.push_str(text),
                None => texts.push((key, text.to_owned())),
            }
        }
    });
    fed.expect("events");
    assert_eq!(splitter.pending(), 0, "whole events only");
    (texts, String::from_utf8(out).expect("text"))
}

#[test]
fn a_stream_is_restored_block_by_block_at_every_cut() {
    let (vault, tokens) = vault("a");
    let t = tokens[2].as_str();
    for cut in 0..=TOKEN_BYTES {
        for odd in [false, true] {
            let (a, b) = t.split_at(cut);
            let mut events = vec![
                delta(0, "thinking_delta", "thinking", &format!("th {a}")),
                delta(0, "thinking_delta", "thinking", &format!("{b}, {}", t.to_ascii_lowercase())),
                delta(0, "signature_delta", "signature", t),
                stop(0),
                delta(1, "text_delta", "text", &format!("te {a}")),
                "event: ping\ndata: {\"type\":\"ping\"}\n\n".to_owned(),
                delta(1, "text_delta", "text", &format!("{b} ZQ")),
                stop(1),
                delta(2, "input_json_delta", "partial_json", &format!("{{\\\"a\\\":\\\"{a}")),
                delta(2, "input_json_delta", "partial_json", &format!("{b}\\\"}}")),
                stop(2),
            ];
            if odd {
                events.iter_mut().for_each(|event| *event = event.replace("\"index\":", "\"index\" : "));
            }
            let (texts, _) = stream(Live::of([&vault]), &events);
            let of = |key: &str| texts.iter().find(|(k, _)| k == key).map(|(_, text)| text.clone()).expect(key);
            assert_eq!(of("0 thinking"), format!("th {}, {}", value(2), t.to_ascii_lowercase()));
            assert_eq!(of("0 signature"), t);
            assert_eq!(of("1 text"), format!("te {} ZQ", value(2)));
            let input: serde_json::Value = serde_json::from_str(&of("2 partial_json")).expect("a tool's input");
            assert_eq!(input["a"], value(2), "cut {cut}, odd {odd}");
        }
    }
}

#[test]
fn events_without_a_token_pass_as_they_came() {
    let (vault, _) = vault("a");
    let events = [
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\" , \"usage\":{}}}\n\n"
            .to_owned(),
        ": a comment\n\n".to_owned(),
        delta(0, "text_delta", "text", "quiet harbour"),
        delta(0, "text_delta", "text", ""),
        delta(0, "text_delta", "text", "\\u00e9\\n").replace("\"index\":0", "\"index\": 0"),
        "event: brand_new\ndata: {\"type\":\"brand_new\"}\n\n".to_owned(),
        "event: content_block_delta\ndata: not json\n\n".to_owned(),
        stop(0),
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n".to_owned(),
    ];
    let mut restorer = StreamRestorer::new(Arc::new(Live::of([&vault])));
    for event in &events {
        let mut out = Vec::new();
        restorer.event(event.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).expect("text"), *event, "at once");
    }
}

#[test]
fn errors_and_citations_are_restored_too() {
    let (vault, tokens) = vault("a");
    let events = [
        delta(0, "text_delta", "text", &tokens[0].as_str()[..5]),
        format!(
            "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"api_error\",\"message\":\"bad {:?}\"}}}}\n\n",
            tokens[0]
        ),
    ];
    let (texts, out) = stream(Live::of([&vault]), &events);
    assert_eq!(texts[0].1, tokens[0].as_str()[..5], "what was held comes before the error");
    assert!(out.ends_with(&format!("bad {}\"}}}}\n\n", value(0))), "{out}");
}

#[test]
fn a_whole_answer_is_restored_and_its_signatures_are_not() {
    let (vault, tokens) = vault("a");
    let t = tokens[0].as_str();
    let body = |text: &str, signature: &str| {
        format!(
            r#"{{"content":[{{"type":"thinking","thinking":"{text}","signature":"{signature}"}},{{"type":"text","text":"{text}"}},{{"type":"tool_use","input":{{"{text}":["{text}"]}}}}]}}"#
        )
    };
    let restored = restore::message(&Live::of([&vault]), body(t, t).as_bytes()).expect("JSON");
    assert_eq!(String::from_utf8(restored).expect("text"), body(&value(0), t));
    assert_eq!(restore::message(&Live::of([&vault]), b"{"), None);
}

#[test]
fn a_reader_that_comes_back_where_nothing_is_held_gets_what_the_others_got() {
    let (vault, tokens) = vault("a");
    let (live, token) = (Arc::new(Live::of([&vault])), tokens[0].as_str());
    let small = token.to_ascii_lowercase();
    // Inside a word no token in another dress begins: who comes back there has to know that.
    let text = format!("x{small} a_{small}.n{small} {token} Zz{token}Z\\\\n{small}\\n{small} {}", &token[..4]);
    let pieces = units(&text, Escape::Json).into_iter().map(|unit| delta(0, "text_delta", "text", unit));
    let events: Vec<String> = pieces.chain([stop(0)]).collect();
    let run = |from: usize, before: &[String]| {
        let mut restorer = StreamRestorer::new(Arc::clone(&live));
        before.iter().for_each(|event| restorer.comes_after(event.as_bytes()));
        let mut outs = Vec::new();
        for event in &events[from..] {
            let mut out = Vec::new();
            restorer.event(event.as_bytes(), &mut out);
            outs.push((String::from_utf8(out).expect("text"), restorer.held()));
        }
        outs
    };
    let whole = run(0, &[]);
    let places = (1..events.len()).filter(|at| whole[at - 1].1 == 0);
    assert!(places.clone().count() > 20);
    for at in places {
        assert_eq!(run(at, &events[at.saturating_sub(2)..at]), whole[at..], "after event {at}");
    }
}

#[test]
fn what_may_be_restored_can_be_kept_by_itself() {
    let (vault, tokens) = vault("a");
    let ring = KeyRing::new([(1, [1; 32])]).expect("a ring");
    let key = |stream: &str| ScopeKey::derive(&[1; 32], "acme", Some(stream));
    let sealed = Live::of([&vault]).seal(key("str_1"), &ring).expect("sealed");
    assert!(!sealed.windows(5).any(|window| window == b"13800"));
    let again = Live::open(key("str_1"), &ring, &sealed).expect("opened");
    for (number, token) in tokens.iter().enumerate() {
        assert_eq!(again.value(*token), Some(&*value(number)));
    }
    assert!(Live::open(key("str_2"), &ring, &sealed).is_err(), "another stream's");
    for end in 1..sealed.len() {
        assert!(Live::open(key("str_1"), &ring, &sealed[..end]).map_or(true, |live| live.value(tokens[3]).is_none()
            || live.value(tokens[0]).is_none()
            || live.value(tokens[1]).is_none()
            || live.value(tokens[2]).is_none()));
    }
}
