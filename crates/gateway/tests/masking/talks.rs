//! Conversations: the same value is the same token in every turn, what the log has is masked, and its
//! owner gets it back at every door.

use crate::echo::OWN_NUMBER;
use crate::scene::{Answer, EMAIL, Folder, PHONE, SAID, Scene, asks, life, masking, plain, request, rules};
use serde_json::{Value, json};
use tidegate_gateway::redaction::Redaction;
use tidegate_redact::rules::{Policy, Rules, Style};

const RETRY: (&str, &str) = ("x-stainless-retry-count", "1");

async fn say(scene: &Scene, id: &str, body: &Value) -> Answer {
    let answer = scene.post(body, &[("tidegate-conversation", id)]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

/// Asks at a door of conversations.
async fn door(scene: &Scene, method: &str, path: &str, body: &str) -> Answer {
    let kind: &[(&str, &str)] =
        if path == "/v1/conversations" { &[("content-type", "application/x-ndjson")] } else { &[] };
    scene.ask(&request(method, path, body, kind)).await
}

fn token(body: &Value, message: usize) -> String {
    let message = plain(&body["messages"][message]);
    let text = message["content"][0]["text"].as_str().unwrap();
    text.split([' ', '?']).find(|word| word.starts_with("ZQP")).unwrap().to_owned()
}

#[tokio::test]
async fn a_second_turn_has_the_same_tokens_and_the_first_one_the_same_bytes() {
    let folder = Folder::new();
    let scene = Scene::with_log(masking(), &folder);
    assert_eq!(say(&scene, "c", &asks(true, SAID)).await.said("text"), SAID);
    let again = format!("Was it {PHONE}?");
    assert_eq!(say(&scene, "c", &asks(true, &again)).await.said("text"), again);
    scene.assert_masked(2);
    let bodies = scene.bodies();
    assert_eq!(plain(&bodies[0]["messages"][0]), plain(&bodies[1]["messages"][0]));
    assert_eq!(plain(&bodies[1]["messages"][1])["content"], plain(&bodies[0]["messages"][0])["content"]);
    assert_eq!(token(&bodies[0], 0), token(&bodies[1], 2));
}

#[tokio::test]
async fn a_client_that_sends_what_it_was_shown_goes_on_with_what_was_sent() {
    let folder = Folder::new();
    let scene = Scene::with_log(masking(), &folder);
    let mut body = asks(false, SAID);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    let first = say(&scene, "c", &body).await.json();
    assert!(first["content"][0]["thinking"].as_str().unwrap().contains(PHONE));
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": first["content"]}));
    messages.push(json!({"role": "user", "content": format!("TELL me whose {EMAIL} is")}));
    let second = say(&scene, "c", &body).await;
    assert_eq!(second.header("tidegate-turn"), Some("2"));
    assert_eq!(second.json()["content"][1]["text"], format!("Try {OWN_NUMBER}."));
    // What the model said of itself is in the log as it said it, and comes back as that.
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": second.json()["content"]}));
    messages.push(json!({"role": "user", "content": "Thanks"}));
    assert_eq!(say(&scene, "c", &body).await.header("tidegate-turn"), Some("3"));
    scene.assert_masked(3);
    let bodies = scene.bodies();
    for (at, message) in bodies[1]["messages"].as_array().unwrap().iter().enumerate() {
        assert_eq!(plain(message), plain(&bodies[2]["messages"][at]));
    }
    assert_eq!(bodies[2]["messages"][3]["content"][1]["text"], format!("Try {OWN_NUMBER}."));
}

#[tokio::test]
async fn a_token_of_another_conversation_is_a_word_like_any_other() {
    let folder = Folder::new();
    let scene = Scene::with_log(masking(), &folder);
    say(&scene, "mine", &asks(true, SAID)).await;
    let token = token(&scene.bodies()[0], 0);
    let asked = format!("Who is {token}?");
    assert_eq!(say(&scene, "theirs", &asks(true, &asked)).await.said("text"), asked);
    assert_eq!(say(&scene, "mine", &asks(true, &asked)).await.said("text"), format!("Who is {PHONE}?"));
    assert_ne!(scene.bodies()[0]["messages"], scene.bodies()[1]["messages"]);
}

#[test]
fn the_owner_reads_what_was_said_and_the_log_does_not_have_it() {
    let folder = Folder::new();
    life(the_owner_reads(&folder));
    assert_holds_nothing(&folder);
}

async fn the_owner_reads(folder: &Folder) {
    let scene = Scene::with_log(masking(), folder);
    say(&scene, "c", &asks(true, SAID)).await;
    let written = json!({"messages": [{"role": "user", "content": format!("My other one is {EMAIL}")}]}).to_string();
    let appended = door(&scene, "POST", "/v1/conversations/c/turns", &written).await;
    assert!(appended.status == 200 && appended.body.contains(EMAIL), "{}", appended.body);
    let turns = scene.get("/v1/conversations/c/turns").await.json();
    assert_eq!(turns["data"][0]["messages"][0]["content"], SAID);
    assert_eq!(turns["data"][0]["answer"]["content"][0]["text"], SAID);
    assert_eq!(turns["data"][1]["messages"][0]["content"], format!("My other one is {EMAIL}"));
    let window = scene.get("/v1/conversations/c/window?messages=true").await;
    assert!(window.body.contains(PHONE) && window.body.contains(EMAIL), "{}", window.body);
}

#[track_caller]
pub(crate) fn assert_holds_nothing(folder: &Folder) {
    let bytes = folder.bytes();
    for value in [PHONE, EMAIL] {
        assert!(memchr::memmem::find(&bytes, value.as_bytes()).is_none(), "{value} is in a file");
    }
    assert!(memchr::memmem::find(&bytes, b"ZQP").is_some(), "the masked text is there");
}

#[test]
fn after_a_restart_the_conversation_goes_on_with_its_tokens() {
    let folder = Folder::new();
    let before = life(async {
        let scene = Scene::with_log(masking(), &folder);
        say(&scene, "c", &asks(true, SAID)).await;
        scene.bodies().remove(0)
    });
    life(async {
        let scene = Scene::with_log(masking(), &folder);
        let asked = format!("Was it {PHONE}?");
        assert_eq!(say(&scene, "c", &asks(true, &asked)).await.said("text"), asked);
        assert_eq!(plain(&scene.bodies()[0]["messages"][0]), plain(&before["messages"][0]));
        scene.assert_masked(1);
    });
    // With keys and no filter what is there is still put back; without them it cannot be gone on with.
    let turns = |redaction| life(async { Scene::with_log(redaction, &folder).get("/v1/conversations/c/turns").await });
    assert!(turns(Redaction::with_keys(crate::scene::keys())).body.contains(PHONE));
    let other = tidegate_redact::vault::KeyRing::new([(2, [2; 32])]).unwrap();
    let keys = tidegate_gateway::redaction::VaultKeys::new(zeroize::Zeroizing::new([7; 32]), other);
    let refused = turns(Redaction::with_keys(keys));
    assert_eq!((refused.status, &*refused.code()), (500, "vault_unreadable"));
}

#[test]
fn a_retry_is_known_by_what_it_was_and_gets_its_answer_again() {
    use sha2::{Digest, Sha256};
    let folder = Folder::new();
    life(a_retry(&folder));
    // A hash that anybody could make of a text with another number in it is not kept.
    let plain = Sha256::digest(asks(false, SAID).to_string());
    assert!(memchr::memmem::find(&folder.bytes(), &plain).is_none());
}

async fn a_retry(folder: &Folder) {
    let scene = Scene::with_log(masking(), folder);
    let body = asks(true, SAID);
    say(&scene, "c", &body).await;
    let again = scene.post(&body, &[("tidegate-conversation", "c"), RETRY]).await;
    assert_eq!((again.header("tidegate-replayed"), again.said("text")), (Some("true"), SAID.to_owned()));
    let buffered = asks(false, SAID);
    say(&scene, "d", &buffered).await;
    let again = scene.post(&buffered, &[("tidegate-conversation", "d"), RETRY]).await;
    assert_eq!(again.json()["content"][0]["text"], SAID);
    scene.assert_masked(2);
}

#[tokio::test]
async fn a_fork_has_its_history_back_and_goes_on_in_the_same_tokens() {
    let folder = Folder::new();
    let scene = Scene::with_log(masking(), &folder);
    say(&scene, "c", &asks(true, SAID)).await;
    say(&scene, "c", &asks(true, "My bank card is 6222021234567890123 and my phone 13711112222")).await;
    let forked = door(&scene, "POST", "/v1/conversations/c/fork", "{\"id\":\"f\",\"turn\":1}").await;
    assert_eq!(forked.status, 200, "{}", forked.body);
    let deleted = door(&scene, "DELETE", "/v1/conversations/c", "").await;
    assert_eq!(deleted.status, 200);
    let turns = scene.get("/v1/conversations/f/turns").await;
    assert!(turns.body.contains(PHONE) && !turns.body.contains("ZQ"), "{}", turns.body);
    let asked = format!("Was it {PHONE}?");
    assert_eq!(say(&scene, "f", &asks(true, &asked)).await.said("text"), asked);
    let bodies = scene.bodies();
    assert_eq!(plain(&bodies[2]["messages"][0]), plain(&bodies[0]["messages"][0]));
    assert_eq!(token(&bodies[2], 2), token(&bodies[0], 0));
    // Of what its parent was told later it knows nothing.
    let later = token(&bodies[1], 2);
    let asked = format!("And {later}?");
    assert_eq!(say(&scene, "f", &asks(true, &asked)).await.said("text"), asked);
}

#[tokio::test]
async fn a_body_that_departs_forks_with_what_it_repeats() {
    let folder = Folder::new();
    let store = folder.store();
    let scene = Scene::of(masking(), Some(store), std::time::Duration::ZERO, |settings| {
        settings.conversations.divergence = tidegate_gateway::Divergent::Fork;
    });
    let first = say(&scene, "c", &asks(false, SAID)).await.json();
    say(&scene, "c", &asks(false, "one way")).await;
    let mut body = asks(false, SAID);
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": first["content"]}));
    messages.push(json!({"role": "user", "content": format!("another way, {EMAIL}")}));
    let answer = say(&scene, "c", &body).await;
    assert!(answer.header("tidegate-conversation").unwrap().starts_with("c~"), "{}", answer.head);
    assert_eq!(answer.json()["content"][0]["text"], format!("another way, {EMAIL}"));
    scene.assert_masked(3);
    let bodies = scene.bodies();
    assert_eq!(plain(&bodies[2]["messages"][0]), plain(&bodies[0]["messages"][0]));
    assert_eq!(plain(&bodies[2]["messages"][1]), plain(&bodies[1]["messages"][1]));
}

#[test]
fn what_is_deleted_takes_its_vault_along() {
    let folder = Folder::new();
    life(one_is_deleted(&folder));
    let vault = folder.store().vault(tidegate_store::Address::new("default", "c").unwrap()).wait();
    assert_eq!(vault.unwrap(), None);
}

async fn one_is_deleted(folder: &Folder) {
    let scene = Scene::with_log(masking(), folder);
    say(&scene, "c", &asks(true, SAID)).await;
    door(&scene, "DELETE", "/v1/conversations/c", "").await;
    let token = token(&scene.bodies()[0], 0);
    let asked = format!("Who is {token}?");
    assert_eq!(say(&scene, "c", &asks(true, &asked)).await.said("text"), asked);
}

#[tokio::test]
async fn an_end_user_is_erased_by_the_id_that_the_log_does_not_have() {
    let folder = Folder::new();
    let scene = Scene::with_log(masking(), &folder);
    let mut body = asks(true, "Hello");
    body["metadata"] = json!({ "user_id": EMAIL });
    say(&scene, "a", &body).await;
    say(&scene, "b", &body).await;
    body["metadata"] = json!({"user_id": "somebody.else@tidegate-test.cn"});
    say(&scene, "other", &body).await;
    scene.assert_masked(3);
    let bodies = scene.bodies();
    assert_eq!(bodies[0]["metadata"], bodies[1]["metadata"], "one name in all conversations");
    assert_ne!(bodies[0]["metadata"], bodies[2]["metadata"]);
    let turns = scene.get("/v1/conversations/a/turns").await.json();
    assert_eq!(turns["data"][0]["user_id"], EMAIL);
    let id = EMAIL.replace('@', "%40");
    let gone = door(&scene, "DELETE", &format!("/v1/conversations?user_id={id}"), "").await.json();
    let ids: Vec<&str> = gone["data"].as_array().unwrap().iter().map(|gone| gone["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b"], "{gone}");
}

#[tokio::test]
async fn turns_at_once_wait_for_each_other_and_share_what_they_told() {
    let folder = Folder::new();
    let scene = Scene::with_log(masking(), &folder);
    let texts: Vec<String> = (0..8).map(|n| format!("I am {n}, call {PHONE}")).collect();
    let bodies: Vec<Value> = texts.iter().map(|text| asks(true, text)).collect();
    let lines = [("tidegate-conversation", "c"), ("tidegate-body", "new")];
    let [a, b, c, d, e, f, g, h] = std::array::from_fn(|n| scene.post(&bodies[n], &lines));
    let answers = tokio::join!(a, b, c, d, e, f, g, h);
    let answers = [answers.0, answers.1, answers.2, answers.3, answers.4, answers.5, answers.6, answers.7];
    for (answer, text) in answers.iter().zip(&texts) {
        assert_eq!((answer.status, answer.said("text")), (200, text.clone()));
    }
    scene.assert_masked(8);
    let last = scene.bodies().into_iter().max_by_key(|body| body["messages"].as_array().unwrap().len()).unwrap();
    let tokens: std::collections::BTreeSet<String> = (0..15).step_by(2).map(|at| token(&last, at)).collect();
    assert_eq!(tokens.len(), 1, "{last}");
}

#[tokio::test]
async fn with_tags_a_client_goes_on_with_what_it_said_and_what_the_model_did() {
    let folder = Folder::new();
    let tags = Rules { style: Style::Tag, ..Rules::all(Policy::Mask) };
    let scene = Scene::with_log(rules(tags), &folder);
    let mut body = asks(false, &format!("TELL me, I am {PHONE}"));
    for turn in ["1", "2", "3"] {
        let answer = say(&scene, "c", &body).await;
        assert_eq!(answer.header("tidegate-turn"), Some(turn), "{}", answer.head);
        let messages = body["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": answer.json()["content"]}));
        messages.push(json!({"role": "user", "content": format!("And I am {EMAIL}, so TELL me")}));
    }
    scene.assert_masked(3);
}

#[test]
fn with_masking_off_again_a_masked_history_is_still_known_and_put_back() {
    let folder = Folder::new();
    let mut body = asks(false, SAID);
    life(async {
        let scene = Scene::with_log(masking(), &folder);
        let answer = say(&scene, "c", &body).await.json();
        let messages = body["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": answer["content"]}));
        messages.push(json!({"role": "user", "content": "And in clear?"}));
    });
    life(async {
        let scene = Scene::with_log(Redaction::with_keys(crate::scene::keys()), &folder);
        let answer = say(&scene, "c", &body).await;
        assert_eq!(
            (answer.header("tidegate-turn"), &answer.json()["content"][0]["text"]),
            (Some("2"), &json!("And in clear?"))
        );
        scene.assert_masked(1);
        assert!(scene.get("/v1/conversations/c/turns").await.body.contains(PHONE));
        let sent = scene.bodies().remove(0);
        assert_eq!(sent["messages"].as_array().unwrap().len(), 3);
        assert!(sent.get("system").is_none(), "and nothing is explained");
    });
}
