//! Limits that grow slowly, change, are shared with strangers, lie inside others, or are charged
//! up front.

use super::stage::{Ask, Told, play, used};
use super::{all_whole, none_was_turned_away_upstream};
use std::time::Duration;

const API: &str = "api.test";
/// An organisation of which nothing is known but its key.
const NORTH: &str = r#"
[[organisation]]
name = "north"
url = "http://api.test"
keys = [{ value = "sk-ant-north-1" }]
"#;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn haiku(n: usize) -> Ask {
    Ask::about(&format!("number {n}"))
}

#[test]
fn use_that_may_not_grow_sharply_grows_slowly() {
    play(NORTH, &[(API, include_str!("scenarios/ramp.toml"))], async |stage| {
        let told = stage.offer(20.0, s(240), haiku).await;
        none_was_turned_away_upstream(&told);
        let truth = stage.truth(API);
        let whole = told.iter().filter(|t| t.is_whole()).count();
        // Five a second are always allowed.
        assert!(whole > 240 * 4, "{whole} of {}", told.len());
        assert!(truth.refused("429") <= 30, "{}", truth.refused("429"));
        assert_eq!(truth.refused("429"), truth.refused("429-ramp"));
        let shown = &stage.domains("north").await[0];
        assert_eq!(shown["last_throttle"]["by"], "ramp", "{shown}");
    });
}

#[test]
fn a_limit_that_is_halved_costs_little_and_one_that_is_doubled_is_used() {
    play(NORTH, &[(API, include_str!("scenarios/changes.toml"))], async |stage| {
        let offered = stage.begin_offer(30.0, s(180), haiku);
        let mut looks = Vec::new();
        for at in [20, 60, 70, 120, 130, 180] {
            stage.until(s(at)).await;
            looks.push(stage.truth(API));
        }
        let told = offered.await;
        none_was_turned_away_upstream(&told);
        let shares: Vec<_> =
            looks.chunks(2).map(|pair| used("north", None, "output_tokens", &pair[0], &pair[1])).collect();
        let (asked, refused) = stage.truth(API).between("north", 60, 120);
        assert!(shares.iter().all(|share| *share > 0.97), "{shares:?}");
        assert!(refused * 100 <= 3 * (asked + refused), "{refused} of {asked}");
        let (_, later) = stage.truth(API).between("north", 120, 181);
        assert_eq!(later, 0, "more is never too much");
    });
}

#[test]
fn a_stranger_in_our_quota_is_noticed_and_left_his_part() {
    play(NORTH, &[(API, include_str!("scenarios/stranger.toml"))], async |stage| {
        let offered = stage.begin_offer(20.0, s(150), haiku);
        let mut looks = Vec::new();
        for at in [20, 60, 70, 119] {
            stage.until(s(at)).await;
            looks.push(stage.truth(API));
        }
        let during = stage.domains("north").await;
        let told = offered.await;
        none_was_turned_away_upstream(&told);
        let shares: Vec<_> =
            looks.chunks(2).map(|pair| used("north", None, "output_tokens", &pair[0], &pair[1])).collect();
        let (asked, refused) = stage.truth(API).between("north", 60, 120);
        assert!(shares.iter().all(|share| *share > 0.95), "{shares:?}");
        assert!(refused * 100 <= 3 * (asked + refused), "{refused} of {asked}");
        let shown = &during[0]["limits"]["output_tokens"];
        assert!(shown["used_by_others"].as_f64() > Some(1_000.0), "{shown}");
    });
}

/// Requests over both keys: those of the workspace are a tenth.
fn with_lab(limits: &str) -> String {
    let both = "[{ value = \"sk-ant-north-1\" }, { value = \"sk-ant-north-lab\", workspace = \"lab\" }]";
    NORTH.replace("[{ value = \"sk-ant-north-1\" }]", both) + limits
}

#[test]
fn a_workspace_is_held_to_its_part_and_the_rest_is_used_past_it() {
    let config = with_lab("[organisation.workspace.lab.limits.default]\nrequests_per_minute = 60\n");
    play(&config, &[(API, include_str!("scenarios/workspaces.toml"))], async |stage| {
        let offered = stage.begin_offer(20.0, s(100), haiku);
        stage.until(s(20)).await;
        let before = stage.truth(API);
        stage.until(s(100)).await;
        let after = stage.truth(API);
        let told = offered.await;
        none_was_turned_away_upstream(&told);
        let share = used("north", None, "requests", &before, &after);
        let lab = used("north", Some("lab"), "requests", &before, &after);
        assert!(share > 0.97 && lab > 0.97, "{share} of north, {lab} of lab");
        assert_eq!(after.refused("429"), 0);
        let rows = stage.domains("north").await;
        let labs = rows.iter().find(|row| row["workspace"] == "lab").unwrap();
        assert_eq!(labs["workspace_limits"]["requests"]["per_minute"], 60, "{labs}");
    });
}

#[test]
fn a_workspace_whose_limits_nobody_told_us_are_learned_from_its_answers() {
    play(&with_lab(""), &[(API, include_str!("scenarios/workspaces.toml"))], async |stage| {
        let told = stage.offer(20.0, s(100), haiku).await;
        none_was_turned_away_upstream(&told);
        let truth = stage.truth(API);
        assert!(truth.refused("429") <= 3, "{}", truth.refused("429"));
        // All but a few of what the organisation may.
        assert!(truth.between("north", 20, 100).0 > 780, "{:?}", truth.between("north", 20, 100));
    });
}

#[test]
fn where_max_tokens_is_charged_up_front_it_is_reserved() {
    let ours = NORTH.replace("url =", "reserves_output = true\nurl =");
    for (config, refused) in [(ours.as_str(), 0..=0), (NORTH, 20..=10_000)] {
        play(config, &[(API, include_str!("scenarios/reserve.toml"))], async |stage| {
            let told = stage.offer(15.0, s(90), haiku).await;
            none_was_turned_away_upstream(&told);
            let truth = stage.truth(API);
            // Without the setting it works too, but at the price of 429s.
            assert!(refused.contains(&truth.refused("429")), "{}", truth.refused("429"));
        });
    }
}

#[test]
fn an_input_far_larger_than_it_looks_shuts_nobody_out() {
    let both = ["north", "south"].map(|name| NORTH.replace("north", name)).concat();
    play(&both, &[(API, include_str!("scenarios/inputs.toml"))], async |stage| {
        let small = stage.begin_offer(5.0, s(100), haiku);
        stage.until(s(10)).await;
        // Base64 in a text: an image's bytes are few tokens, a text's are many. Full buckets hold a
        // third of it, and every 429 for it asks for a minute's silence.
        let large = Ask::about(&"QUJD".repeat(200_000));
        let told = stage.crowd(2, |_| large.clone()).await;
        assert!(told.iter().all(|t| t.status == 400 || t.text.contains("input_too_large")), "{told:?}");
        let small = small.await;
        all_whole(&small);
        let longest = small.iter().map(Told::took).max();
        assert!(longest < Some(s(15)), "{longest:?}");
        assert!(stage.truth(API).refused("429") <= 6, "{}", stage.truth(API).refused("429"));
    });
}
