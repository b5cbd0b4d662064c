//! What does not go out: kinds that are blocked, parts that cannot be looked into, and everything while
//! the filter does not work.

use crate::scene::{EMAIL, Folder, PHONE, SAID, Scene, asks, keys, masking, request, rules};
use serde_json::json;
use std::sync::Arc;
use tidegate_gateway::redaction::Redaction;
use tidegate_redact::kind::Kind;
use tidegate_redact::mask::Filter;
use tidegate_redact::rules::{Policy, Rules, Unscannable};

fn filter(rules: Rules) -> Option<Arc<Filter>> {
    Some(Arc::new(Filter::new(rules).unwrap()))
}

#[tokio::test]
async fn a_blocked_kind_is_refused_with_its_place_and_without_its_value() {
    let mut blocking = Rules::all(Policy::Mask);
    blocking.policies[Kind::Email.index()] = Policy::Block;
    let scene = Scene::new(rules(blocking));
    let answer = scene.post(&asks(true, SAID), &[]).await;
    assert_eq!((answer.status, &*answer.code()), (400, "personal_data"));
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("email at messages.0.content"), "{message}");
    assert!(!answer.body.contains(EMAIL) && !answer.body.contains(PHONE));
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    scene.assert_masked(0);
    assert_eq!(scene.metric("tidegate_redact_findings_total{tenant=\"default\",kind=\"email\",action=\"block\"}"), 1.0);
}

#[tokio::test]
async fn what_cannot_be_looked_into_is_refused_unless_it_may_pass_and_counted_always() {
    let mut body = asks(false, "What is on it?");
    let source = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="});
    body["messages"][0]["content"] = json!([{"type": "image", "source": source}, {"type": "text", "text": "Well?"}]);
    let scene = Scene::new(masking());
    let answer = scene.post(&body, &[]).await;
    assert_eq!((answer.status, &*answer.code()), (400, "unscannable"));
    assert!(answer.body.contains("messages.0.content.0.source.data"), "{}", answer.body);
    scene.assert_masked(0);
    assert_eq!(scene.metric("tidegate_redact_unscannable_total{tenant=\"default\",action=\"block\"}"), 1.0);
    let passing = Scene::new(rules(Rules { unscannable: Unscannable::Pass, ..Rules::all(Policy::Mask) }));
    assert_eq!(passing.post(&body, &[]).await.status, 200);
    assert_eq!(passing.metric("tidegate_redact_unscannable_total{tenant=\"default\",action=\"pass\"}"), 1.0);
}

#[tokio::test]
async fn a_filter_that_fails_fails_the_request() {
    // Tokens without keys: the configuration does not let this begin, and the path not let it pass.
    let scene = Scene::new(Redaction::off().for_all(filter(Rules::all(Policy::Mask))));
    let answer = scene.post(&asks(true, "nothing in it at all"), &[]).await;
    assert_eq!((answer.status, &*answer.code()), (500, "redaction_failed"));
    scene.assert_masked(0);
    assert_eq!(scene.metric("tidegate_redact_failed_total{tenant=\"default\"}"), 1.0);
    // What is only kept, and not sent, fails as well.
    let folder = Folder::new();
    let scene = Scene::with_log(Redaction::off().for_all(filter(Rules::all(Policy::Mask))), &folder);
    let body = json!({"messages": [{"role": "user", "content": "nothing"}]}).to_string();
    let answer = scene.ask(&request("POST", "/v1/conversations/c/turns", &body, &[])).await;
    assert_eq!((answer.status, &*answer.code()), (500, "redaction_failed"));
}

#[tokio::test]
async fn each_tenant_has_its_own_filter() {
    let mine = Redaction::with_keys(keys()).for_all(filter(Rules::all(Policy::Block))).for_tenant("default", None);
    let scene = Scene::new(mine);
    assert_eq!(scene.post(&asks(true, SAID), &[]).await.said("text"), SAID);
    assert_eq!(scene.bodies(), [asks(true, SAID)]);
    let block = Redaction::with_keys(keys()).for_tenant("default", filter(Rules::all(Policy::Block)));
    assert_eq!(Scene::new(block).post(&asks(true, SAID), &[]).await.status, 400);
}
