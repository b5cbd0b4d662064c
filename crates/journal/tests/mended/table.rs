//! The table of `crates/journal/src/recover/mod.rs`, row by row.

use crate::play::*;
use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_journal::recover::{Action, HELD_BYTES_MAX, Mode, Rules, TEXT_BYTES_MAX, Unmendable};
use tidegate_wire::request::MessagesRequest;

const BOTH: [Mode; 2] = [Mode::Restart, Mode::Continue];

fn body(model: &str, more: &str) -> Vec<u8> {
    format!(r#"{{"model":"{model}","max_tokens":1000,{more}"messages":[{{"role":"user","content":"hi"}}],"x":1.50}}"#)
        .into_bytes()
}

fn request(play: &mut Play, body: &[u8]) -> Result<Value, Unmendable> {
    let asked: Bytes = play.mender.request(body, &MessagesRequest::read(body).unwrap())?;
    assert!(asked.ends_with(br#","x":1.50}"#), "nothing else is changed");
    Ok(serde_json::from_slice(&asked).unwrap())
}

/// Feeds `events` to a new mender and cuts.
fn cut(rules: Rules, events: &[Vec<u8>]) -> (Play, Action) {
    let mut play = Play::new(rules);
    play.feed(events).unwrap();
    let action = play.cut();
    (play, action)
}

fn content(play: &Play) -> Value {
    play.message()["content"].clone()
}

#[test]
fn before_content_the_same_request_goes_out_again_however_often() {
    for mode in BOTH {
        let (mut play, action) = cut(Rules::new(mode), &[start(7)]);
        assert_eq!(action, Action::Again);
        for _ in 0..5 {
            play.feed(&[start(8)]).unwrap();
            assert_eq!(play.cut(), Action::Again);
        }
        play.feed(&[start(9), text_block(0), text(0, "whole"), stop(0), totals(3), end()]).unwrap();
        let message = play.message();
        assert_eq!((&message["id"], &message["content"][0]["text"]), (&json!("msg_7"), &json!("whole")));
        assert_eq!(
            message["usage"],
            json!({"input_tokens": 7 + 5 * 8 + 9, "output_tokens": 6 + 3,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0})
        );
        assert_eq!(play.mender.usage().output, 9);
    }
}

#[test]
fn a_block_whose_beginning_is_said_twice_is_one_block() {
    for mode in BOTH {
        let mut play = Play::new(Rules::new(mode));
        play.feed(&[start(7), text_block(0), text_block(0), text(0, "a"), stop(0), totals(3), end()]).unwrap();
        let blocks = content(&play);
        assert_eq!((blocks.as_array().unwrap().len(), &blocks[0]["text"]), (1, &json!("a")));
    }
}

#[test]
fn a_whole_reply_goes_through_as_it_came() {
    for mode in BOTH {
        let reply = [start(7), thinking_block(0), thinking(0, "hm"), signature(0, "S"), stop(0), text_block(1)];
        let reply = [&reply[..], &[text(1, "a\n"), stop(1), call(2, "t"), input(2, "{}"), stop(2), totals(3), end()]];
        let mut play = Play::new(Rules::new(mode));
        play.feed(&reply.concat()).unwrap();
        assert_eq!(play.seen, reply.concat());
        assert_eq!(play.cut(), Action::Ended);
        assert_eq!(play.mender.segments(), 1);
    }
}

#[test]
fn a_prefill_is_asked_for_where_the_model_takes_one() {
    let (mut play, action) = cut(Rules::new(Mode::Continue), &[start(7), text_block(0), text(0, "One, two \n")]);
    assert_eq!(action, Action::GoOn);
    let asked = request(&mut play, &body("claude-sonnet-4-5", "")).unwrap();
    assert_eq!(asked["messages"][1], json!({"role": "assistant", "content": [{"type": "text", "text": "One, two"}]}));
    assert_eq!(asked["messages"].as_array().unwrap().len(), 2);
    assert_eq!(asked["max_tokens"], 998);
    play.feed(&[start(9), text_block(0), text(0, " \nthree"), stop(0), totals(2), end()]).unwrap();
    assert_eq!(content(&play)[0]["text"], "One, two \nthree");
    assert_eq!(play.message()["usage"]["input_tokens"], 16);
}

#[test]
fn later_models_and_thinking_ones_are_asked_in_a_user_turn() {
    for (model, more) in [("claude-opus-5-5", ""), ("claude-sonnet-4-5", r#""thinking":{"type":"enabled"},"#)] {
        let long = format!("{}the end ", "é".repeat(3_000));
        let (mut play, _) = cut(Rules::new(Mode::Continue), &[start(7), text_block(0), text(0, &long)]);
        let asked = request(&mut play, &body(model, more)).unwrap();
        assert_eq!(asked["messages"][1], json!({"role": "assistant", "content": [{"type": "text", "text": long}]}));
        let tail = format!("{}the end ", "é".repeat(1_992));
        let words =
            format!("Your previous response was interrupted and ended with {tail}. Continue from where you left off.");
        assert_eq!(asked["messages"][2], json!({"role": "user", "content": words}));
    }
}

#[test]
fn whole_texts_are_gone_on_from_in_a_new_block_or_in_none() {
    let whole = [start(7), text_block(0), text(0, "One, two."), stop(0)];
    let (mut play, action) = cut(Rules::new(Mode::Continue), &whole);
    assert_eq!(action, Action::GoOn);
    let mut silent = Play::new(Rules::new(Mode::Continue));
    silent.feed(&whole).unwrap();
    silent.cut();
    play.feed(&[start(7), text_block(0), text(0, "One, two. Three."), stop(0), totals(2), end()]).unwrap();
    assert_eq!((&content(&play)[0]["text"], &content(&play)[1]["text"]), (&json!("One, two."), &json!(" Three.")));
    // It only repeats: nothing is added.
    silent.feed(&[start(7), text_block(0), text(0, "One, two."), stop(0), totals(2), end()]).unwrap();
    assert_eq!(content(&silent).as_array().unwrap().len(), 1);
}

#[test]
fn a_call_is_held_and_dropped_until_the_totals_are_there() {
    let half = [start(7), text_block(0), text(0, "I look."), stop(0), call(1, "dead"), input(1, "{\"x\":")];
    let whole = [&half[..], &[input(1, "1}"), stop(1)]].concat();
    for cut_at in [&half[..], &whole[..]] {
        let (mut play, action) = cut(Rules::new(Mode::Continue), cut_at);
        assert_eq!(action, Action::GoOn);
        assert_eq!(play.seen.len(), 4, "nobody has seen the call");
        play.feed(&[start(7), call(0, "new"), input(0, "{\"x\":2}"), stop(0), totals(2), end()]).unwrap();
        assert_eq!(content(&play)[1], json!({"type": "tool_use", "id": "new", "name": "f", "input": {"x": 2}}));
    }
    let (play, action) = cut(Rules::new(Mode::Continue), &[&whole[..], &[totals(5)]].concat());
    assert_eq!((action, &content(&play)[1]["id"]), (Action::Ended, &json!("dead")));
}

#[test]
fn a_call_after_half_a_text_closes_the_text() {
    let (mut play, _) = cut(Rules::new(Mode::Continue), &[start(7), text_block(0), text(0, "I lo")]);
    let calls = [call(1, "t"), input(1, "{}"), stop(1), call(2, "u"), stop(2)];
    play.feed(&[&[start(7), text_block(0), text(0, "ok."), stop(0)], &calls[..], &[totals(2), end()]].concat())
        .unwrap();
    assert_eq!(content(&play)[0]["text"], "I look.");
    assert_eq!((&content(&play)[1]["id"], &content(&play)[2]["id"]), (&json!("t"), &json!("u")));
    // The same without a word more.
    let (mut play, _) = cut(Rules::new(Mode::Continue), &[start(7), text_block(0), text(0, "I look.")]);
    play.feed(&[start(7), call(0, "t"), stop(0), totals(2), end()]).unwrap();
    assert_eq!((&content(&play)[0]["text"], &content(&play)[1]["id"]), (&json!("I look."), &json!("t")));
}

#[test]
fn thinking_is_mended_only_while_nobody_has_seen_part_of_it() {
    let unseen = [start(7), thinking_block(0), thinking(0, ""), signature(0, "S")];
    let part = [start(7), thinking_block(0), thinking(0, "hm")];
    let whole = [&part[..], &[signature(0, "S"), stop(0)]].concat();
    let new = [start(8), thinking_block(0), thinking(0, "new"), signature(0, "N"), stop(0)];
    let new = [&new[..], &[text_block(1), text(1, "So."), stop(1), totals(2), end()]].concat();
    for mode in BOTH {
        let (holds, shows) = (Rules::new(mode), Rules { holds_thinking: false, ..Rules::new(mode) });
        assert_eq!(cut(shows, &part).1, Action::GiveUp(Unmendable::Thinking));
        for (rules, events, thought) in
            [(shows, &unseen[..], "new"), (holds, &part[..], "new"), (shows, &whole[..], "hm")]
        {
            let (mut play, action) = cut(rules, events);
            assert_eq!(action, Action::Again);
            play.feed(&new).unwrap();
            let content = content(&play);
            assert_eq!((&content[0]["thinking"], &content[1]["text"]), (&json!(thought), &json!("So.")));
            assert_eq!(content.as_array().unwrap().len(), 2);
        }
    }
}

#[test]
fn of_a_text_after_thinking_the_text_goes_on_and_the_thinking_stays_out() {
    let cut_at =
        [start(7), thinking_block(0), thinking(0, "hm"), signature(0, "S"), stop(0), text_block(1), text(1, "So th")];
    let (mut play, action) = cut(Rules::new(Mode::Continue), &cut_at);
    assert_eq!(action, Action::GoOn);
    let asked = request(&mut play, &body("claude-opus-5-5", "")).unwrap();
    assert_eq!(asked["messages"][1]["content"], json!([{"type": "text", "text": "So th"}]));
    let new = [start(8), thinking_block(0), thinking(0, "again"), signature(0, "N"), stop(0)];
    play.feed(&[&new[..], &[text_block(1), text(1, "is."), stop(1), totals(2), end()]].concat()).unwrap();
    assert_eq!(content(&play)[1]["text"], "So this.");
    assert_eq!(content(&play).as_array().unwrap().len(), 2);
}

#[test]
fn what_must_not_be_done_twice_is_not() {
    for mode in BOTH {
        for kind in ["server_tool_use", "mcp_tool_use", "brand_new"] {
            let events = [start(7), begin(0, json!({"type": kind, "id": "s", "input": {}}))];
            assert_eq!(cut(Rules::new(mode), &events).1, Action::GiveUp(Unmendable::Block));
            let after = [&events[..], &[stop(0), text_block(1), text(1, "found")]].concat();
            assert_eq!(cut(Rules::new(mode), &after).1, Action::GiveUp(Unmendable::Block));
        }
    }
}

#[test]
fn after_the_totals_only_the_end_is_missing() {
    for mode in BOTH {
        let (play, action) = cut(Rules::new(mode), &[start(7), text_block(0), text(0, "a"), stop(0), totals(2)]);
        assert_eq!((action, play.seen.last().unwrap().clone()), (Action::Ended, end()));
        assert_eq!(play.message()["usage"]["output_tokens"], 2);
    }
}

#[test]
fn a_reply_is_taken_up_so_often_and_then_given_up() {
    let (mut play, _) = cut(Rules::new(Mode::Continue), &[start(7), text_block(0), text(0, "one")]);
    play.feed(&[start(7), text_block(0), text(0, &format!(" two{}", " and".repeat(30)))]).unwrap();
    assert_eq!(play.cut(), Action::GoOn);
    play.feed(&[start(7)]).unwrap();
    assert_eq!(play.cut(), Action::GiveUp(Unmendable::Spent));
    assert_eq!(play.mender.segments(), 3);
}

#[test]
fn the_same_reply_again_is_shown_from_where_the_client_is() {
    let first = [start(7), text_block(0), text(0, "One."), stop(0), text_block(1), text(1, "Tw")];
    let (mut play, action) = cut(Rules::new(Mode::Restart), &first);
    assert_eq!(action, Action::Again);
    let again =
        [start(8), text_block(0), text(0, "O"), text(0, "ne."), stop(0), text_block(1), text(1, "Two"), text(1, ".")];
    play.feed(&[&again[..], &[stop(1), call(2, "t"), stop(2), totals(2), end()]].concat()).unwrap();
    let content = content(&play);
    assert_eq!(
        (&content[0]["text"], &content[1]["text"], &content[2]["id"]),
        (&json!("One."), &json!("Two."), &json!("t"))
    );
    for other in [
        &[start(8), text_block(0), text(0, "On the")][..],
        &[start(8), text_block(0), text(0, "One.."), stop(0)],
        &[start(8), text_block(0), text(0, "One"), stop(0)],
        &[start(8), text_block(0), text(0, "One."), stop(0), totals(1)],
    ] {
        let (mut play, _) = cut(Rules::new(Mode::Restart), &first);
        let seen = play.seen.clone();
        assert_eq!(play.feed(other), Err(Unmendable::Diverged));
        assert_eq!(play.seen, seen, "and the client sees nothing of it");
    }
}

#[test]
fn what_cannot_be_asked_for_is_not() {
    let formats = [
        r#""output_config":{"format":{"type":"json_schema"}},"#,
        r#""output_format":{},"#,
        r#""thread":{"type":"create"},"#,
    ];
    for more in formats {
        let (mut play, _) = cut(Rules::new(Mode::Continue), &[start(7), text_block(0), text(0, "{\"a\":")]);
        assert_eq!(request(&mut play, &body("claude-opus-5-5", more)), Err(Unmendable::Request));
    }
}

#[test]
fn what_is_kept_is_counted_and_bounded() {
    let mut play = Play::new(Rules::new(Mode::Continue));
    play.feed(&[start(7), text_block(0), text(0, "four"), stop(0)]).unwrap();
    assert_eq!(play.mender.bytes(), 4);
    let (held, rest) = (call(1, "t"), input(1, "{}"));
    let mut play = Play::new(Rules::new(Mode::Continue));
    play.feed(&[start(7), text_block(0), text(0, "four"), stop(0), held.clone(), rest.clone()]).unwrap();
    assert_eq!(play.mender.bytes(), 4 + held.len() + rest.len());
    play.cut();
    assert_eq!(play.mender.bytes(), 4);
    // A text that is too long to be gone on from is passed on, and not kept.
    let piece = "x".repeat(TEXT_BYTES_MAX / 2);
    let (play, action) =
        cut(Rules::new(Mode::Continue), &[start(7), text_block(0), text(0, &piece), text(0, &piece), text(0, "x")]);
    assert_eq!((action, play.mender.bytes(), play.seen.len()), (Action::GiveUp(Unmendable::TooLarge), 0, 5));
}

#[test]
fn past_what_may_be_held_everything_is_passed_on_and_nothing_mended() {
    let mut events = vec![start(7), call(0, "t")];
    let piece = "x".repeat(100_000);
    events.extend((0..HELD_BYTES_MAX / 100_000 + 1).map(|_| input(0, &piece)));
    events.push(input(0, "last"));
    let (play, action) = cut(Rules::new(Mode::Continue), &events);
    assert_eq!(action, Action::GiveUp(Unmendable::TooLarge));
    assert_eq!(play.seen, events);
}
