//! Small windows, by hand; what must hold of all of them is in `tests/windows.rs`.

use super::*;

const EACH: u64 = 100;

fn user(text: &str) -> String {
    format!(r#"{{"role":"user","content":"{text}"}}"#)
}
fn assistant(text: &str) -> String {
    format!(r#"{{"role":"assistant","content":"{text}"}}"#)
}
fn call(id: &str) -> String {
    format!(
        r#"{{"role":"assistant","content":[{{"type":"thinking","thinking":"hm","signature":"s"}},{{"type":"tool_use","id":"{id}","name":"f","input":{{}}}}]}}"#
    )
}
fn result(id: &str, bytes: usize) -> String {
    let text = "x".repeat(bytes);
    format!(r#"{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"{id}","content":"{text}"}}]}}"#)
}
fn system(text: &str) -> String {
    format!(r#"{{"role":"system","content":"{text}"}}"#)
}

/// A tenth of a token a byte, and at least [`EACH`] for a message: round numbers for small texts.
fn estimate(text: &[u8]) -> u64 {
    (text.len() as u64 / 10).max(EACH)
}

fn history(texts: &[String]) -> History {
    let mut history = History::default();
    for text in texts {
        let message = Message::read(Bytes::copy_from_slice(text.as_bytes())).unwrap();
        let tokens = message.tokens(&estimate);
        history.push(message, tokens).unwrap();
    }
    history
}

fn talk(groups: usize) -> Vec<String> {
    (0..groups).flat_map(|n| [user(&format!("q{n}")), assistant(&format!("a{n}"))]).collect()
}

fn wanted<'a>(history: &'a History, view: &'a View, room: u64) -> Wanted<'a> {
    Wanted {
        history,
        view,
        budget: Budget { window: room, max_tokens: 0, margin: 0, fixed: 0 },
        rules: Rules::default(),
        conversation: 50,
        summary: None,
        recalled: None,
        marks_elsewhere: 0,
        set_marks: false,
        estimate: &estimate,
    }
}

fn text(window: &Window) -> String {
    String::from_utf8(window.body.to_vec()).unwrap()
}

#[test]
fn what_fits_is_sent_as_it_came() {
    let texts = [talk(3), vec![user("now")]].concat();
    let h = history(&texts);
    let window = build(&wanted(&h, &View::default(), 10_000)).unwrap();
    assert_eq!(text(&window), format!("[{}]", texts.join(",")));
    assert_eq!((window.tokens, window.is_cut, window.view), (700, false, View::default()));
}

#[test]
fn past_the_high_mark_it_is_cut_to_the_low_one_and_then_grows_again() {
    let mut texts = [talk(7), vec![user("now")]].concat();
    // 1,500 tokens of 2,000 are 75 %: not past it.
    let first = build(&wanted(&history(&texts), &View::default(), 2_000)).unwrap();
    assert!(!first.is_cut);
    texts.extend([assistant("and"), user("then")]);
    let h = history(&texts);
    let second = build(&wanted(&h, &first.view, 2_000)).unwrap();
    // Down to 800: the note, and the groups from q5 or later on.
    assert!(second.is_cut && second.tokens <= 800, "{}", second.tokens);
    assert!(text(&second).starts_with(r#"[{"role":"user","content":[{"type":"text","text":"[10 earlier messages"#));
    texts.extend([assistant("so"), user("go on")]);
    let h = history(&texts);
    let third = build(&wanted(&h, &second.view, 2_000)).unwrap();
    assert!(!third.is_cut && third.view == second.view);
    assert_eq!(third.messages[..second.messages.len()], second.messages);
    assert_eq!(
        third.parts[1],
        Part { what: What::Messages { from: 0, until: 10 }, tokens: 1_000, media: 0, fate: Fate::Out(Why::Oldest) }
    );
}

#[test]
fn results_go_before_thinking_and_both_before_groups() {
    let looped =
        |n: usize| [user(&format!("q{n}")), call(&format!("t{n}")), result(&format!("t{n}"), 4_000), assistant("ok")];
    let texts = [(0..3).flat_map(looped).collect(), talk(1), vec![user("now")]].concat();
    let h = history(&texts);
    // Loops of 708 tokens, 308 of them the result's content, and 300 at the end: 2,424, past 75 % of 2,800.
    let cut_to = |low_percent: u8| {
        let rules = Rules { low_percent, ..Rules::default() };
        build(&Wanted { rules, ..wanted(&h, &View::default(), 2_800) }).unwrap()
    };
    let window = cut_to(70);
    assert!(window.is_cut && window.view.cut == 0 && window.view.thinking_before == 0);
    assert_eq!(window.view.elided.iter().map(|elided| elided.message).collect::<Vec<_>>(), [2, 6]);
    assert!(text(&window).contains(r#""content":"[elided: 400 tokens, ref m2.0]""#));
    let window = cut_to(50);
    assert_eq!((window.view.cut, window.view.thinking_before), (4, 12));
    assert_eq!(text(&window).matches("signature").count(), 0);
}

#[test]
fn inside_a_long_loop_only_results_the_model_has_seen_are_elided() {
    let mut texts = vec![user("go")];
    for n in 0..6 {
        texts.extend([call(&format!("t{n}")), result(&format!("t{n}"), 4_000)]);
    }
    let h = history(&texts);
    let window = build(&wanted(&h, &View::default(), 3_300)).unwrap();
    let elided: Vec<usize> = window.view.elided.iter().map(|elided| elided.message).collect();
    assert_eq!(elided, [2, 4, 6, 8, 10]);
    assert_eq!(text(&window).matches("signature").count(), 6);
    assert!(text(&window).contains(&result("t5", 4_000)));
    assert!(matches!(window.parts[3].fate, Fate::Elided { why: Why::OpenToolLoop, results: 1, thinking: false, .. }));
}

#[test]
fn what_cannot_fit_is_an_error_that_says_what_is_large() {
    let h = history(&[talk(4), vec![user(&"x".repeat(50_000))]].concat());
    let error = build(&wanted(&h, &View::default(), 4_000)).unwrap_err();
    assert_eq!((error.room, error.largest[0].0), (4_000, 8));
    assert!(error.to_string().contains("largest: messages.8 with 50"), "{error}");
}

#[test]
fn pinned_groups_and_system_messages_survive_a_cut() {
    let mut texts = vec![user("rules"), system("be brief"), assistant("yes")];
    texts.extend(talk(2));
    texts.extend([user("keep me"), assistant("kept")]);
    texts.extend(talk(8));
    texts.push(user("now"));
    let mut h = history(&texts);
    h.pin(8);
    let window = build(&wanted(&h, &View::default(), 2_500)).unwrap();
    let sent = text(&window);
    assert!(sent.contains("keep me") && sent.contains("kept") && !sent.contains("rules"));
    let system = r#"{"role":"system","content":[{"type":"text","text":"be brief"}]}"#;
    assert!(sent.contains(&format!(r#"{},{system},{}"#, user("keep me"), assistant("kept"))), "{sent}");
    h.unpin(8);
    let window = build(&wanted(&h, &View::default(), 2_500)).unwrap();
    assert!(!text(&window).contains("keep me"));
}

#[test]
fn a_summary_that_is_ready_takes_the_place_of_what_it_covers() {
    let h = history(&[talk(9), vec![user("now")]].concat());
    let ready = Standing { from: 0, until: 12, text: "<conversation-summary/>".into() };
    let window = build(&Wanted { summary: Some(&ready), ..wanted(&h, &View::default(), 2_000) }).unwrap();
    assert_eq!((window.view.cut, window.view.summary.as_ref()), (12, Some(&ready)));
    assert_eq!(window.parts[1].fate, Fate::Out(Why::Summarised));
    assert!(
        text(&window).starts_with(r#"[{"role":"user","content":[{"type":"text","text":"<conversation-summary/>"}]},"#)
    );
    // What was gone before it was made is told apart from what it covers.
    let late = Standing { from: 4, ..ready.clone() };
    let window = build(&Wanted { summary: Some(&late), ..wanted(&h, &View::default(), 2_000) }).unwrap();
    assert_eq!([1, 2].map(|nth| window.parts[nth].fate.clone()), [Fate::Out(Why::Oldest), Fate::Out(Why::Summarised)]);
    assert!(text(&window).contains(r#"{"type":"text","text":"[4 earlier messages of this"#));
    // Not at a group's border, or reaching into what stays: not used.
    for until in [11, 18] {
        let wrong = Standing { until, ..ready.clone() };
        let window = build(&Wanted { summary: Some(&wrong), ..wanted(&h, &View::default(), 2_000) }).unwrap();
        assert_eq!(window.view.summary, None);
    }
}

#[test]
fn a_summary_may_begin_inside_a_pinned_group() {
    let mut h = history(&[talk(9), vec![user("now")]].concat());
    h.pin(2);
    let ready = Standing { from: 3, until: 12, text: "<conversation-summary/>".into() };
    let rules = Rules { low_percent: 60, ..Rules::default() };
    let window = build(&Wanted { rules, summary: Some(&ready), ..wanted(&h, &View::default(), 2_000) }).unwrap();
    assert_eq!((window.view.cut, window.view.summary.as_ref()), (12, Some(&ready)));
    assert!(text(&window).contains(r#"{"type":"text","text":"[2 earlier messages of this"#), "{}", text(&window));
}

#[test]
fn excerpts_stand_at_the_end_and_never_push_anything_out() {
    let h = history(&[talk(2), vec![user("now"), system("last")]].concat());
    let view = View::default();
    let window = build(&Wanted { recalled: Some("found"), set_marks: true, ..wanted(&h, &view, 10_000) }).unwrap();
    let found = r#"{"role":"user","content":[{"type":"text","text":"found"}]}"#;
    assert!(text(&window).ends_with(&format!(r#",{found},{}]"#, system("last"))));
    assert_eq!(window.parts.last().map(|part| &part.fate), Some(&Fate::In(Why::Recent)));
    let full = build(&Wanted {
        recalled: Some("found"),
        rules: Rules { high_percent: 100, ..Rules::default() },
        ..wanted(&h, &view, 650)
    });
    assert_eq!(full.unwrap().parts.last().map(|part| part.fate.clone()), Some(Fate::Out(Why::NoRoom)));
    let answered = history(&talk(2));
    let window = build(&Wanted { recalled: Some("found"), ..wanted(&answered, &view, 10_000) }).unwrap();
    assert_eq!(window.parts.last().map(|part| part.fate.clone()), Some(Fate::Out(Why::NoPlace)));
}

#[test]
fn a_view_of_what_was_rolled_back_is_forgotten() {
    let mut h = history(&[talk(9), vec![user("now")]].concat());
    let view = build(&wanted(&h, &View::default(), 2_000)).unwrap().view;
    assert!(view.cut > 4);
    h.truncate(5);
    let window = build(&wanted(&h, &view, 2_000)).unwrap();
    assert_eq!((window.messages.len(), window.view), (5, View::default()));
    let stored: View = serde_json::from_str(&serde_json::to_string(&view).unwrap()).unwrap();
    assert_eq!(stored, view);
}

#[test]
fn ten_thousand_results_in_one_message_are_elided_in_one_go() {
    let ids: Vec<String> = (0..crate::block::BLOCKS_MAX).map(|n| format!("t{n}")).collect();
    let calls: Vec<String> =
        ids.iter().map(|id| format!(r#"{{"type":"tool_use","id":"{id}","name":"f","input":{{}}}}"#)).collect();
    let long = "x".repeat(400);
    let results: Vec<String> =
        ids.iter().map(|id| format!(r#"{{"type":"tool_result","tool_use_id":"{id}","content":"{long}"}}"#)).collect();
    let texts = [
        vec![user("go")],
        vec![format!(r#"{{"role":"assistant","content":[{}]}}"#, calls.join(","))],
        vec![format!(r#"{{"role":"user","content":[{}]}}"#, results.join(","))],
        vec![assistant("done")],
        talk(2),
        vec![user("now")],
    ]
    .concat();
    let h = history(&texts);
    let tenth = |text: &[u8]| text.len() as u64 / 10;
    let view = View::default();
    let window = build(&Wanted { estimate: &tenth, ..wanted(&h, &view, 650_000) }).unwrap();
    // Most of it, and no more than that: what is sent ends just below the mark of 260,000.
    assert_eq!((window.view.cut, window.is_cut), (0, true));
    let elided = window.view.elided.len();
    assert!((5_000..9_000).contains(&elided) && window.tokens.abs_diff(260_000) < 20_000, "{elided} {}", window.tokens);
}
