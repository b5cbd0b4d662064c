//! Answers that go straight to the client that asked: streamed, buffered, put together, refused.

use crate::scene::{EMAIL, PHONE, SAID, Scene, asks, masking, rules};
use serde_json::json;
use tidegate_gateway::redaction::Redaction;
use tidegate_redact::rules::{Policy, Rules, Style};

#[tokio::test]
async fn what_comes_in_pieces_of_a_byte_is_put_back_and_nothing_of_it_left() {
    let scene = Scene::new(masking());
    let answer = scene.post(&asks(true, SAID), &[]).await;
    assert_eq!((answer.status, answer.said("text")), (200, SAID.to_owned()));
    let names: Vec<String> = answer.events().into_iter().map(|(_, name, _)| name).collect();
    assert_eq!((names.first().unwrap().as_str(), names.last().unwrap().as_str()), ("message_start", "message_stop"));
    scene.assert_masked(1);
    assert_eq!(scene.metric("tidegate_redact_findings_total{tenant=\"default\",kind=\"phone\",action=\"mask\"}"), 1.0);
}

#[tokio::test]
async fn a_tools_input_is_put_back_as_json_and_thinking_for_display() {
    let scene = Scene::new(masking());
    let mut body = asks(true, "Their note: \"call 13912345678\"\nand no more");
    body["tools"] = json!([{"name": "note", "input_schema": {"type": "object"}}]);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    let answer = scene.post(&body, &[]).await;
    let input: serde_json::Value = serde_json::from_str(&answer.said("partial_json")).unwrap();
    assert_eq!(input["said"], "Their note: \"call 13912345678\"\nand no more");
    assert!(answer.said("thinking").contains(PHONE));
    scene.assert_masked(1);
}

#[tokio::test]
async fn thinking_that_is_sent_again_is_what_was_signed() {
    let scene = Scene::new(masking());
    let mut body = asks(true, SAID);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    let first = scene.post(&body, &[]).await;
    let thinking = first.said("thinking");
    assert!(thinking.contains(EMAIL) && thinking.contains(PHONE));
    let signed = json!({"type": "thinking", "thinking": thinking, "signature": first.said("signature")});
    let said = json!({"type": "text", "text": first.said("text")});
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": [signed, said]}));
    messages.push(json!({"role": "user", "content": "And my number again?"}));
    let second = scene.post(&body, &[]).await;
    assert_eq!((second.status, second.said("text")), (200, "And my number again?".to_owned()));
    scene.assert_masked(2);
    // The same history is the same bytes: what the upstream has in its cache stays good.
    let bodies = scene.bodies();
    assert_eq!(bodies[0]["messages"][0], bodies[1]["messages"][0]);
    assert_eq!(bodies[0]["system"], bodies[1]["system"]);
}

#[tokio::test]
async fn what_the_model_wrote_itself_into_its_thinking_stays_what_it_signed() {
    let scene = Scene::new(masking());
    // The model is told the number only after it thought of it; a rule finds it in its answer.
    let mut body = asks(true, "Who could help?");
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    let first = scene.post(&body, &[]).await;
    let thought = format!("{} {PHONE}", first.said("thinking"));
    use sha2::Digest;
    let signature: String = sha2::Sha256::digest(&thought).iter().map(|byte| format!("{byte:02x}")).collect();
    let signed = json!({"type": "thinking", "thinking": thought, "signature": signature});
    let said = json!({"type": "text", "text": format!("Try {PHONE}.")});
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": [signed, said]}));
    messages.push(json!({"role": "user", "content": format!("Whose is {PHONE}?")}));
    let second = scene.post(&body, &[]).await;
    assert_eq!((second.status, second.said("text")), (200, format!("Whose is {PHONE}?")));
    let sent = scene.bodies().remove(1);
    assert!(sent["messages"][1]["content"][0]["thinking"].as_str().unwrap().ends_with(PHONE));
    assert!(!sent["messages"][1]["content"][1].to_string().contains(PHONE));
}

#[tokio::test]
async fn buffered_answers_are_put_back_with_their_right_length() {
    let scene = Scene::new(masking());
    let short = scene.post(&asks(false, SAID), &[]).await;
    let mut long = asks(false, SAID);
    long["max_tokens"] = json!(60_000);
    let assembled = scene.post(&long, &[]).await;
    for answer in [&short, &assembled] {
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["content"][0]["text"], SAID);
        assert_eq!(answer.header("content-length").unwrap(), answer.body.len().to_string());
    }
    assert_eq!(scene.bodies()[1]["stream"], true);
    scene.assert_masked(2);
}

#[tokio::test]
async fn a_refusal_that_says_what_was_sent_is_put_back() {
    let scene = Scene::new(masking());
    let answer = scene.post(&asks(true, &format!("REFUSE {PHONE}")), &[]).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["message"], format!("this cannot be: REFUSE {PHONE}"));
    scene.assert_masked(1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_holds_nothing_back() {
    let scene = Scene::new(masking());
    // The last letters could be the beginning of a token.
    let answer = scene.post(&asks(true, &format!("CUT {PHONE} and then ZQ")), &[]).await;
    assert_eq!(answer.said("text"), format!("CUT {PHONE} and then ZQ"));
    assert_eq!(answer.events().last().unwrap().1, "error");
}

#[tokio::test]
async fn token_counts_are_of_what_would_be_sent() {
    let scene = Scene::new(masking());
    let body = json!({"model": "m", "messages": [{"role": "user", "content": SAID}]}).to_string();
    let request = crate::scene::request("POST", "/v1/messages/count_tokens", &body, &[]);
    let answer = scene.ask(&request).await;
    let sent = scene.bodies().remove(0);
    assert_eq!(answer.json()["input_tokens"], sent["messages"][0]["content"].as_str().unwrap().len());
    scene.assert_masked(1);
}

#[tokio::test]
async fn tags_are_for_good_and_nothing_is_explained() {
    let tags = Rules { style: Style::Tag, ..Rules::all(Policy::Mask) };
    let scene = Scene::new(rules(tags));
    let answer = scene.post(&asks(true, SAID), &[]).await;
    assert_eq!(answer.said("text"), "Call [PHONE] or write to [EMAIL] today");
    scene.assert_masked(1);
    assert!(scene.bodies()[0].get("system").is_none());
}

#[tokio::test]
async fn the_model_is_told_what_tokens_are_unless_it_is_not_to_be() {
    let scene = Scene::new(masking());
    let mut body = asks(true, "nothing to hide");
    scene.post(&body, &[]).await;
    body["system"] = json!([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]);
    scene.post(&body, &[]).await;
    let bodies = scene.bodies();
    let line = bodies[0]["system"].as_str().unwrap();
    assert!(line.contains("ten capital letters"), "{line}");
    assert_eq!(bodies[1]["system"][0], body["system"][0], "what is cached stays");
    assert_eq!(bodies[1]["system"][1], json!({"type": "text", "text": line}));
    let silent = Scene::new(masking().explained(false));
    let plain = asks(true, "nothing to hide");
    silent.post(&plain, &[]).await;
    assert_eq!(silent.bodies(), [plain], "and then not a byte is changed");
}

#[tokio::test]
async fn without_a_filter_nothing_is_touched_and_with_reports_it_is_counted() {
    let off = Scene::new(Redaction::off());
    off.post(&asks(true, SAID), &[]).await;
    assert_eq!(off.bodies(), [asks(true, SAID)]);
    let report = Scene::new(rules(Rules::all(Policy::Report)));
    report.post(&asks(true, SAID), &[]).await;
    assert_eq!(report.bodies(), [asks(true, SAID)]);
    let name = "tidegate_redact_findings_total{tenant=\"default\",kind=\"email\",action=\"report\"}";
    assert_eq!((report.metric(name), off.metric(name)), (1.0, 0.0));
}

#[tokio::test]
async fn the_same_history_has_the_same_tokens_on_another_gateway_and_others_have_others() {
    let (a, b) = (Scene::new(masking()), Scene::new(masking()));
    for scene in [&a, &b] {
        scene.post(&asks(true, SAID), &[]).await;
    }
    assert_eq!(a.bodies(), b.bodies());
    let token = a.bodies()[0]["messages"][0]["content"].as_str().unwrap()[5..15].to_owned();
    // Marks for the cache wander from turn to turn.
    let mut marked = asks(true, SAID);
    marked["messages"][0]["content"] = json!([{"type": "text", "text": SAID, "cache_control": {"type": "ephemeral"}}]);
    a.post(&marked, &[]).await;
    assert_eq!(&a.bodies()[1]["messages"][0]["content"][0]["text"].as_str().unwrap()[5..15], token);
    // Somebody else who has seen the token gets nothing for it, told or not told.
    let other = a.post(&asks(true, &format!("Who is {token}? I am at {EMAIL}")), &[]).await;
    assert_eq!(other.said("text"), format!("Who is {token}? I am at {EMAIL}"));
    a.assert_masked(3);
}

#[tokio::test]
async fn a_large_body_is_masked_beside_the_streams() {
    let scene = Scene::new(masking());
    let text = format!("{}{SAID}", "All of this is plain prose, line by line. ".repeat(20_000));
    let answer = scene.post(&asks(false, &text), &[]).await;
    assert_eq!(answer.json()["content"][0]["text"], text.as_str());
    scene.assert_masked(1);
    assert_eq!(scene.gateway.held(), (0, 0, 0, 0));
}

#[tokio::test]
async fn a_token_that_broke_off_with_its_answer_is_put_back_when_that_is_taken_up_again() {
    for how in ["restart", "continue"] {
        for resume in ["off", "memory"] {
            let scene = Scene::new(masking());
            let said = format!("HALF of {PHONE} and {EMAIL}");
            let lines = [("tidegate-recover", how), ("tidegate-resume", resume)];
            let answer = scene.post(&asks(true, &said), &lines).await;
            assert!(answer.body.contains(": tidegate-recovered how="), "{how} {resume}: {}", answer.body);
            assert_eq!(answer.said("text"), said, "{how} {resume}");
            scene.assert_masked(2);
        }
    }
}
