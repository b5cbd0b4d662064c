//! What is counted, as what, and on which day.

use crate::scene::{DECEMBER, NOON, OPUS, Scene, body, read};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncReadExt;

#[tokio::test(start_paused = true)]
async fn every_kind_of_token_is_counted_and_priced_by_model() {
    let scene = Scene::at(NOON, None).await;
    scene.ask(OPUS, "in=1000 read=2000 write=300 hour=100 out=50").await.is_whole();
    // Buffered: passed on whole, and by the same rules.
    let buffered = body("claude-haiku-5-5", "in=1000000 out=10", false);
    assert_eq!(read(scene.send("gateway:80", "/v1/messages", &buffered, &[]).await).await.status, 200);
    let counting = scene.send("gateway:80", "/v1/messages/count_tokens", &body(OPUS, "in=5", false), &[]).await;
    assert_eq!(read(counting).await.status, 200);
    scene.rests().await;
    let page = scene.usage("").await;
    assert_eq!((&page["from"], &page["to"]), (&json!("2026-11-01"), &json!("2026-11-23")));
    let rows = page["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "counting tokens costs nothing: {page}");
    let opus = json!({
        "day": "2026-11-23", "tenant": "default", "model": OPUS, "kind": "answered", "attempts": 1,
        "estimated_attempts": 0, "unpriced_attempts": 0, "input_tokens": 1000, "cache_read_tokens": 2000,
        "cache_write_5m_tokens": 200, "cache_write_1h_tokens": 100, "output_tokens": 50,
        // 4,000 + 800 + 1,000 + 800 + 1,000 millionths of a dollar.
        "cost_nano_usd": 7_600_000, "usd": "0.0076",
    });
    assert_eq!(rows[1], opus);
    assert_eq!((&rows[0]["usd"], &page["total"]["usd"]), (&json!("0.100005"), &json!("0.107605")));
    assert_eq!(page["budgets"], json!([]));
    for (query, want) in [
        ("?tenant=default&model=claude-opus-5-5", 1),
        ("?model=claude-opus", 0),
        ("?tenant=x", 0),
        ("?from=2026-11-23&to=2026-11-23", 2),
        ("?to=2026-11-22", 0),
    ] {
        assert_eq!(scene.rows(query).await.len(), want, "{query}");
    }
    for bad in ["?from=today", "?modell=x", "?from=2026-11-24"] {
        assert_eq!(scene.usage_asked(bad).await.refusal(), (400, "invalid_query".to_owned()), "{bad}");
    }
    assert_eq!(scene.metric("tidegate_cost_nano_usd_total{tenant=\"default\",model=\"claude-opus-5-5\"}"), 7_600_000.0);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_came_to_nothing_are_shown_apart() {
    let scene = Scene::at(NOON, None).await;
    scene.ask(OPUS, "break=2 in=1000 out=50").await.is_whole();
    scene.rests().await;
    let is = |kind: &str, attempts, output, usd: &str| {
        ("2026-11-23".to_owned(), kind.to_owned(), attempts, output, Some(usd.to_owned()))
    };
    // What was read before it broke off is billed: a thousand tokens each time.
    assert_eq!(scene.rows("").await, [is("answered", 1, 50, "0.005"), is("retried", 2, 0, "0.008")]);

    let mut leaving = scene.send("gateway:80", "/v1/messages", &body(OPUS, "in=1000 wait=60 out=999", true), &[]).await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("text_delta") {
        assert!(leaving.read_buf(&mut seen).await.unwrap() > 0);
    }
    drop(leaving);
    scene.rests().await;
    let page = scene.usage("").await;
    let abandoned = page["rows"].as_array().unwrap().iter().find(|row| row["kind"] == "abandoned").unwrap();
    let output = abandoned["output_tokens"].as_u64().unwrap();
    assert!((5..30).contains(&output), "what it produced is an estimate: {abandoned}");
    assert_eq!((&abandoned["estimated_attempts"], &abandoned["input_tokens"]), (&json!(1), &json!(1000)));
    assert_eq!(abandoned["cost_nano_usd"], json!(4_000_000 + output * 20_000));
    assert_eq!(page["total"]["attempts"], 4);
}

#[tokio::test(start_paused = true)]
async fn a_price_that_is_not_known_is_said_and_not_guessed() {
    let scene = Scene::at(NOON, None).await;
    scene.ask("house-model", "in=10 out=5").await.is_whole();
    scene.ask(OPUS, "in=10 out=5 fast").await.is_whole();
    scene.ask(OPUS, "mute").await.is_whole();
    scene.ask(OPUS, "in=10 out=5").await.is_whole();
    scene.rests().await;
    let page = scene.usage("").await;
    let of = |model: &str| page["rows"].as_array().unwrap().iter().find(|row| row["model"] == model).unwrap().clone();
    let (house, opus) = (of("house-model"), of(OPUS));
    assert_eq!(
        (&house["usd"], &house["unpriced_attempts"], &house["output_tokens"]),
        (&Value::Null, &json!(1), &json!(5))
    );
    // Of three attempts two have a price, one of them by estimate: nobody said what it used. One was fast.
    assert_eq!((&opus["attempts"], &opus["unpriced_attempts"]), (&json!(3), &json!(1)), "{opus}");
    assert_eq!(opus["estimated_attempts"], json!(1));
    assert_eq!((&page["total"]["usd"], &page["total"]["unpriced_attempts"]), (&opus["usd"], &json!(2)));
    assert_eq!(scene.metric("tidegate_unpriced_attempts_total{tenant=\"default\",model=\"house-model\"}"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_request_belongs_to_the_day_and_the_month_it_ends_in() {
    let scene = Scene::at(DECEMBER - 90, None).await;
    scene.ask(OPUS, "in=100 out=50").await.is_whole();
    scene.clock.sleep_until(scene.clock.now() + Duration::from_secs(70)).await;
    // Begins twenty seconds before midnight, and ends after it.
    scene.ask(OPUS, "in=100 out=100 wait=40").await.is_whole();
    scene.rests().await;
    let is =
        |day: &str, output| (day.to_owned(), "answered".to_owned(), 1, output, Some(format!("0.00{}4", output / 50)));
    assert_eq!(scene.rows("").await, [is("2026-12-01", 100)], "this month");
    assert_eq!(scene.rows("?from=2026-11-30").await, [is("2026-11-30", 50), is("2026-12-01", 100)]);
    assert!(scene.usage("").await["kept"]["note"].as_str().unwrap().contains("since this process began"));
}
