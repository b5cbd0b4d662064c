//! Export and import: in clear for the owner, masked in every file.

use crate::echo::OWN_NUMBER;
use crate::scene::{Answer, EMAIL, Folder, PHONE, SAID, Scene, asks, life, masking, request};
use crate::talks::assert_holds_nothing;
use serde_json::{Value, json};

const ALL: &str = "/v1/conversations?format=jsonl";

async fn import(scene: &Scene, lines: &str) -> Answer {
    let kind = [("content-type", "application/x-ndjson")];
    scene.ask(&request("POST", "/v1/conversations", lines, &kind)).await
}

/// Two conversations: one with an answer of the model's own, an end user, and spaces of the client's.
async fn told(folder: &Folder) -> String {
    let scene = Scene::with_log(masking(), folder);
    let mut body = asks(false, SAID);
    body["metadata"] = json!({ "user_id": EMAIL });
    scene.post(&body, &[("tidegate-conversation", "a")]).await;
    scene.post(&asks(false, "TELL me"), &[("tidegate-conversation", "a")]).await;
    // Of a quotation mark in a value the embedded text has to have one escape more.
    let spaced =
        format!("{{\"messages\":[\n {{\"role\": \"user\",\"content\": \"password: \\\"{PHONE}\\\" {EMAIL}\" }}\n]}}");
    let written = scene.ask(&request("POST", "/v1/conversations/b/turns", &spaced, &[])).await;
    assert_eq!(written.status, 200, "{}", written.body);
    scene.get(ALL).await.body
}

#[test]
fn what_is_carried_over_is_in_clear_on_its_way_and_masked_at_both_ends() {
    let (from, to) = (Folder::new(), Folder::new());
    let lines = life(told(&from));
    assert_holds_nothing(&from);
    for value in [PHONE, EMAIL, OWN_NUMBER] {
        assert!(lines.contains(value), "{lines}");
    }
    let of: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let text = of.iter().find_map(|line| line["request_text"].as_str()).unwrap();
    assert!(text.contains('\n') && text.contains(PHONE) && serde_json::from_str::<Value>(text).is_ok(), "{text}");
    let user = of.iter().find_map(|line| line["end_user"].as_str());
    assert_eq!(user, Some(EMAIL));
    life(async {
        let scene = Scene::with_log(masking(), &to);
        let answer = import(&scene, &lines).await;
        assert_eq!(
            (answer.status, answer.json()["added"].as_u64()),
            (200, Some(of.len() as u64 - 1)),
            "{}",
            answer.body
        );
        assert_eq!(scene.get(ALL).await.body, lines);
        // Again, and in two parts, it is there already.
        let again = import(&scene, &lines).await;
        assert_eq!((again.status, again.json()["added"].as_u64()), (200, Some(0)), "{}", again.body);
        let asked = format!("Was it {PHONE}?");
        let answer = scene.post(&asks(true, &asked), &[("tidegate-conversation", "a")]).await;
        assert_eq!(answer.said("text"), asked);
        scene.assert_masked(1);
    });
    assert_holds_nothing(&to);
    let bytes = to.bytes();
    assert!(memchr::memmem::find(&bytes, OWN_NUMBER.as_bytes()).is_none(), "what is imported is masked like a turn");
    // Where it was told it is the same as what is there, the model's own word too.
    life(async {
        let scene = Scene::with_log(masking(), &from);
        let again = import(&scene, &lines).await;
        assert_eq!((again.status, again.json()["added"].as_u64()), (200, Some(0)), "{}", again.body);
    });
}

#[tokio::test]
async fn a_line_that_may_not_be_kept_is_refused() {
    let folder = Folder::new();
    let scene = Scene::with_log(masking(), &folder);
    let head = json!({"type": "conversation", "conversation": "a", "created_ms": 1, "updated_ms": 1, "turns": 1});
    let source = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="});
    let turn = json!({"type": "turn", "conversation": "a", "number": 1, "status": "appended", "created_ms": 1,
        "request": [{"role": "user", "content": [{"type": "image", "source": source}]}]});
    let answer = import(&scene, &format!("{head}\n{turn}\n")).await;
    assert_eq!((answer.status, &*answer.code()), (400, "unscannable"));
    // What an answer says beside its content is kept as well, and masked.
    let turn = json!({"type": "turn", "conversation": "a", "number": 1, "status": "complete", "created_ms": 1,
        "request": [{"role": "user", "content": "who?"}],
        "answer": {"role": "assistant", "content": [], "stop_sequence": PHONE}});
    assert_eq!(import(&scene, &format!("{head}\n{turn}\n")).await.status, 200);
    assert!(memchr::memmem::find(&folder.bytes(), PHONE.as_bytes()).is_none());
    assert!(scene.get("/v1/conversations/a/turns").await.body.contains(PHONE));
    let broken = import(&scene, &format!("{head}\n{{\"type\":\"turn\",\"conversation\":\"a\"}}\n")).await;
    assert_eq!((broken.status, &*broken.code()), (400, "invalid_line"), "{}", broken.body);
    assert_eq!(scene.get("/v1/conversations/a/turns").await.json()["data"].as_array().unwrap().len(), 1);
}
