//! What is kept and what a death takes: a turn in the log has what restores it, and a request that came
//! to nothing leaves nothing.

use crate::scene::{EMAIL, Folder, PHONE, SAID, Scene, asks, life, masking, plain};
use crate::talks::assert_holds_nothing;
use std::time::Duration;
use tidegate_store::Address;

#[test]
fn a_turn_that_broke_off_is_kept_with_its_vault() {
    let folder = Folder::new();
    life(async {
        let scene = Scene::with_log(masking(), &folder);
        let answer = scene.post(&asks(true, &format!("CUT {SAID}")), &[("tidegate-conversation", "c")]).await;
        assert_eq!(answer.events().last().unwrap().1, "error");
    });
    assert_holds_nothing(&folder);
    let turns = life(async { Scene::with_log(masking(), &folder).get("/v1/conversations/c/turns").await.json() });
    assert_eq!(turns["data"][0]["status"], "interrupted");
    assert_eq!(turns["data"][0]["answer"]["content"][0]["text"], format!("CUT {SAID}"));
}

#[test]
fn a_request_that_was_refused_leaves_nothing() {
    let folder = Folder::new();
    life(async {
        let scene = Scene::with_log(masking(), &folder);
        let lines = [("tidegate-conversation", "c")];
        let refused = scene.post(&asks(true, &format!("REFUSE {PHONE}")), &lines).await;
        assert_eq!(refused.status, 400);
        scene.post(&asks(true, &format!("only {EMAIL}")), &lines).await;
    });
    let records = || {
        let vault = folder.store().vault(Address::new("default", "c").unwrap()).wait();
        vault.unwrap().unwrap().records.len()
    };
    assert_eq!(records(), 1, "that of the turn that is there");
    // Told again after it came to nothing, in one life, it is told for good.
    life(async {
        let scene = Scene::with_log(masking(), &folder);
        let lines = [("tidegate-conversation", "c")];
        scene.post(&asks(true, &format!("REFUSE {PHONE}")), &lines).await;
        scene.post(&asks(true, &format!("now {PHONE}")), &lines).await;
    });
    assert_eq!(records(), 2);
    let turns = life(async { Scene::with_log(masking(), &folder).get("/v1/conversations/c/turns").await.body });
    assert!(turns.contains(PHONE), "{turns}");
}

#[tokio::test]
async fn a_client_that_leaves_takes_back_what_it_told() {
    let folder = Folder::new();
    let scene = Scene::of(masking(), Some(folder.store()), Duration::from_millis(5), |_| {});
    let body = asks(true, SAID).to_string();
    let lines = [("tidegate-conversation", "c")];
    let client = scene.client(&crate::scene::request("POST", "/v1/messages", &body, &lines)).await;
    while scene.seen.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(client);
    // The next turn is the first one, and has the tokens that it would have had.
    let answer = scene.post(&asks(true, SAID), &lines).await;
    assert_eq!(answer.said("text"), SAID);
    assert!(matches!(answer.header("tidegate-turn"), Some("1" | "2")), "{}", answer.head);
    let bodies = scene.bodies();
    let last = |n: usize| plain(bodies[n]["messages"].as_array().unwrap().last().unwrap());
    assert_eq!(last(0), last(1));
}

#[tokio::test]
async fn a_client_that_leaves_while_its_body_is_masked_loses_nothing_of_its_conversation() {
    let folder = Folder::new();
    let scene = Scene::with_log(masking(), &folder);
    let lines = [("tidegate-conversation", "c")];
    scene.post(&asks(true, SAID), &lines).await;
    // Some megabytes of the slowest text take longer than the client waits.
    let long = asks(true, &"4 7 1 9 2 ".repeat(300_000)).to_string();
    let client = scene.client(&crate::scene::request("POST", "/v1/messages", &long, &lines)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(client);
    let asked = format!("Was it {PHONE}?");
    let answer = scene.post(&asks(true, &asked), &lines).await;
    assert_eq!((answer.said("text"), answer.header("tidegate-turn")), (asked, Some("2")));
    scene.assert_masked(2);
    let bodies = scene.bodies();
    assert_eq!(plain(&bodies[0]["messages"][0]), plain(&bodies[1]["messages"][0]));
    while scene.gateway.held() != (0, 0, 0, 0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
