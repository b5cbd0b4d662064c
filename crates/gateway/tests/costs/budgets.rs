//! A tenant's budget: warned of, reached, begun anew; and what is under way meanwhile.

use crate::scene::{Answer, DECEMBER, NOON, OPUS, Scene, body, cents, read};
use serde_json::json;
use std::time::Duration;
use tidegate_observe::{Budget, Reached, Unpriced};
use tokio::io::AsyncReadExt;

fn budget_reached(answer: &Answer) {
    assert_eq!(answer.refusal(), (402, "budget_reached".to_owned()), "{}", answer.body);
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_which_the_budget_is_reached_ends_whole_and_the_next_request_is_refused() {
    let scene = Scene::at(NOON, Some(cents(10))).await;
    let first = scene.ask(OPUS, "in=5000 out=3000").await;
    first.is_whole();
    assert_eq!(first.header("tidegate-budget-spent"), None, "nothing was spent before it");
    let second = scene.ask(OPUS, "in=5000 out=4000 wait=20").await;
    second.is_whole();
    assert_eq!(second.header("tidegate-budget-spent"), Some("80%"));
    scene.rests().await;
    let refused = scene.ask(OPUS, "out=1").await;
    budget_reached(&refused);
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    for want in ["0.10 USD", "0.18 USD are spent", "2026-12-01T00:00:00Z"] {
        assert!(message.contains(want), "{want}: {message}");
    }
    let counting = scene.send("gateway:80", "/v1/messages/count_tokens", &body(OPUS, "in=5", false), &[]).await;
    assert_eq!(read(counting).await.status, 200, "what costs nothing goes on");
    let budgets = &scene.usage("").await["budgets"];
    let want = json!([{"tenant": "default", "month": "2026-11", "monthly_usd": "0.10", "spent_usd": "0.18",
        "reserved_usd": "0.00", "spent_percent": 180, "warn_percent": 80, "when_reached": "refuse", "state": "reached",
        "anew": "2026-12-01T00:00:00Z"}]);
    assert_eq!(*budgets, want);
    let action = |name: &str| {
        scene.metric(&format!("tidegate_tenant_budget_actions_total{{tenant=\"default\",action=\"{name}\"}}"))
    };
    assert_eq!(["warned", "reached", "refused", "queued"].map(action), [1.0, 1.0, 1.0, 0.0]);
    let spent = scene.metric("tidegate_tenant_budget_nano_usd{tenant=\"default\",part=\"spent\"}");
    assert_eq!(spent, 180_000_000.0);
}

#[tokio::test(start_paused = true)]
async fn a_budget_begins_anew_with_the_month() {
    let scene = Scene::at(DECEMBER - 3_600, Some(cents(10))).await;
    scene.ask(OPUS, "out=6000").await.is_whole();
    scene.rests().await;
    budget_reached(&scene.ask(OPUS, "out=1").await);
    scene.clock.sleep_until(scene.clock.now() + Duration::from_secs(3_590)).await;
    budget_reached(&scene.ask(OPUS, "out=2").await);
    scene.clock.sleep_until(scene.clock.now() + Duration::from_secs(10)).await;
    scene.ask(OPUS, "in=5 out=2").await.is_whole();
    scene.rests().await;
    assert_eq!(scene.usage("").await["budgets"][0]["spent_usd"], "0.00006");
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_hold_what_they_are_thought_to_cost() {
    let scene = Scene::at(NOON, Some(cents(10))).await;
    // A thousand tokens, two cents and a little input, are thought of for each.
    let orders = body(OPUS, "out=50 wait=30", true);
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut io = scene.send("gateway:80", "/v1/messages", &orders, &[]).await;
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("text_delta") {
            assert!(io.read_buf(&mut seen).await.unwrap() > 0);
        }
        held.push(io);
    }
    let refused = scene.ask(OPUS, "out=1").await;
    budget_reached(&refused);
    assert_eq!(refused.header("x-should-retry"), None, "nothing is spent: it may come back");
    assert!(refused.body.contains("0.00 USD are spent"), "{}", refused.body);
    // One leaves, and what it held comes back.
    drop(held.pop());
    scene.clock.sleep_until(scene.clock.now() + Duration::from_secs(1)).await;
    scene.ask(OPUS, "out=2").await.is_whole();
    for io in held {
        let mut rest = Vec::new();
        let mut io = io;
        io.read_to_end(&mut rest).await.unwrap();
        assert!(String::from_utf8(rest).unwrap().contains("message_stop"), "nothing under way is cut");
    }
    scene.rests().await;
    let budget = scene.usage("").await["budgets"][0].clone();
    assert_eq!((&budget["reserved_usd"], &budget["state"]), (&json!("0.00"), &json!("open")), "{budget}");
}

#[tokio::test(start_paused = true)]
async fn a_reached_budget_can_mean_the_background_or_nothing_but_a_word() {
    let background = "tidegate_queue_wait_seconds_count{band=\"background\"}";
    for (reached, in_background) in [(Reached::Queue, 1.0), (Reached::Warn, 0.0)] {
        let scene = Scene::at(NOON, Some(Budget { reached, ..cents(1) })).await;
        let urgent = [("tidegate-priority", "interactive")];
        scene.ask_with(OPUS, "out=600", &urgent).await.is_whole();
        scene.rests().await;
        assert_eq!(scene.metric(background), 0.0);
        let answer = scene.ask_with(OPUS, "out=1", &urgent).await;
        answer.is_whole();
        assert_eq!(answer.header("tidegate-budget-spent"), Some("120%"));
        scene.rests().await;
        assert_eq!(scene.metric(background), in_background, "{reached:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_price_a_budget_sees_nothing_or_lets_nothing_through() {
    let scene = Scene::at(NOON, Some(cents(1))).await;
    scene.ask("house-model", "out=1000000").await.is_whole();
    scene.rests().await;
    scene.ask(OPUS, "out=1").await.is_whole();
    let scene = Scene::at(NOON, Some(Budget { unpriced: Unpriced::Refuse, ..cents(1) })).await;
    let refused = scene.ask("house-model", "out=1").await;
    assert_eq!(refused.refusal(), (403, "price_unknown".to_owned()));
    scene.ask(OPUS, "out=1").await.is_whole();
    // A fast answer was asked for, of which there is no price.
    let mut fast = body(OPUS, "out=1", true);
    fast["speed"] = json!("fast");
    let refused = read(scene.send("gateway:80", "/v1/messages", &fast, &[]).await).await;
    assert_eq!(refused.refusal(), (403, "price_unknown".to_owned()));
    assert_eq!(scene.usage("").await["total"]["attempts"], 1, "what was refused used nothing");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_can_be_come_back_to_is_refused_and_warned_like_any_other() {
    let scene = Scene::at(NOON, Some(cents(10))).await;
    let resume = [("tidegate-resume", "memory")];
    scene.ask_with(OPUS, "out=4500", &resume).await.is_whole();
    scene.rests().await;
    let warned = scene.ask_with(OPUS, "out=600", &resume).await;
    warned.is_whole();
    assert_eq!(warned.header("tidegate-budget-spent"), Some("90%"));
    scene.rests().await;
    let refused = scene.ask_with(OPUS, "out=1", &resume).await;
    budget_reached(&refused);
    assert_eq!(scene.usage("").await["total"]["attempts"], 2, "each counted once, not by its reader too");
}
