//! Streams that can be come back to: their logs are masked, and each reader gets the whole text once,
//! wherever it begins.

use crate::scene::{Answer, Folder, PHONE, SAID, Scene, asks, life, masking, said};
use crate::talks::assert_holds_nothing;
use std::time::Duration;

const MEMORY: (&str, &str) = ("tidegate-resume", "memory");
const DURABLE: (&str, &str) = ("tidegate-resume", "durable");

fn ids(answer: &Answer) -> Vec<String> {
    answer.events().into_iter().map(|(id, ..)| id.unwrap()).collect()
}

/// A text whose every letter could begin a token, with values at both ends.
fn hard() -> String {
    format!("{PHONE} ZQ zq ZQP Z z ZZQZQ; {SAID} and ZQ")
}

/// Comes back at each place there is, and gets what follows.
async fn comes_back_everywhere(scene: &Scene, whole: &Answer) {
    let stream = whole.header("tidegate-stream").unwrap().to_owned();
    let (events, ids) = (whole.events(), ids(whole));
    assert!(ids.is_sorted() && ids.windows(2).all(|two| two[0] != two[1]), "{ids:?}");
    for (at, id) in ids.iter().enumerate() {
        let rest = scene.get(&format!("/v1/streams/{stream}?after={id}")).await;
        assert_eq!(rest.status, 200, "{}", rest.body);
        assert_eq!(rest.said("text"), said(&events[at + 1..], "text"), "after {id}");
        assert_eq!(rest.events().last().map(|e| e.1.clone()), events[at + 1..].last().map(|e| e.1.clone()));
    }
    let again = scene.get(&format!("/v1/streams/{stream}")).await;
    assert_eq!(again.said("text"), whole.said("text"));
}

#[tokio::test]
async fn a_stream_in_memory_is_whole_from_every_cursor() {
    let scene = Scene::of(masking(), None, Duration::from_millis(1), |_| {});
    let whole = scene.post(&asks(true, &hard()), &[MEMORY]).await;
    assert_eq!(whole.said("text"), hard());
    comes_back_everywhere(&scene, &whole).await;
    scene.assert_masked(1);
}

#[tokio::test]
async fn one_that_lags_gets_it_joined_and_whole() {
    let scene = Scene::new(masking());
    let whole = scene.post(&asks(true, &hard()), &[MEMORY]).await;
    assert_eq!(whole.said("text"), hard());
    comes_back_everywhere(&scene, &whole).await;
}

#[test]
fn a_durable_stream_is_put_back_after_a_restart_and_kept_masked() {
    let folder = Folder::new();
    let whole = life(async {
        let scene = Scene::with_log(masking(), &folder);
        let whole = scene.post(&asks(true, &hard()), &[DURABLE]).await;
        assert_eq!(whole.said("text"), hard());
        comes_back_everywhere(&scene, &whole).await;
        whole
    });
    assert_holds_nothing(&folder);
    life(async { comes_back_everywhere(&Scene::with_log(masking(), &folder), &whole).await });
    assert_holds_nothing(&folder);
}

#[test]
fn a_durable_turn_of_a_conversation_is_both() {
    let folder = Folder::new();
    life(a_durable_turn(&folder));
    assert_holds_nothing(&folder);
}

async fn a_durable_turn(folder: &Folder) {
    let scene = Scene::with_log(masking(), folder);
    let lines = [DURABLE, ("tidegate-conversation", "c")];
    let whole = scene.post(&asks(true, SAID), &lines).await;
    assert_eq!((whole.said("text"), whole.header("tidegate-turn")), (SAID.to_owned(), Some("1")));
    comes_back_everywhere(&scene, &whole).await;
    // The answer of a turn that is there already, into a log as well.
    let again = scene.post(&asks(true, SAID), &[lines[0], lines[1], ("x-stainless-retry-count", "1")]).await;
    assert_eq!((again.said("text"), again.header("tidegate-replayed")), (SAID.to_owned(), Some("true")));
    scene.assert_masked(1);
}

#[tokio::test]
async fn a_refusal_inside_a_hosted_stream_is_put_back() {
    let scene = Scene::new(masking());
    let answer = scene.post(&asks(true, &format!("REFUSE {PHONE}")), &[MEMORY]).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["message"], format!("this cannot be: REFUSE {PHONE}"));
    let cut = scene.post(&asks(true, &format!("CUT {SAID} ZQ")), &[MEMORY]).await;
    assert_eq!(cut.said("text"), format!("CUT {SAID} ZQ"));
    assert_eq!(cut.events().last().unwrap().1, "error");
}
