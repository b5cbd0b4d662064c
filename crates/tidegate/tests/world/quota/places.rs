//! Where requests go: past what fails, past rejected keys and back, where the cache is being filled,
//! and to their own organisation with a credential of their own.

use super::all_whole;
use super::stage::{Ask, play};
use serde_json::json;
use std::time::Duration;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn haiku(n: usize) -> Ask {
    Ask::about(&format!("number {n}"))
}

fn organisation(name: &str, host: &str) -> String {
    format!(
        "[[organisation]]\nname = \"{name}\"\nurl = \"http://{host}\"\nkeys = [{{ value = \"sk-ant-{name}-1\" }}]\n"
    )
}

#[test]
fn an_organisation_that_fails_is_left_alone_and_looked_at_again() {
    let config = ["a", "b", "c"].map(|name| organisation(name, &format!("{name}.test"))).concat();
    let failing = include_str!("scenarios/failing.toml");
    let calm = include_str!("scenarios/cache.toml");
    play(&config, &[("a.test", failing), ("b.test", calm), ("c.test", calm)], async |stage| {
        let offered = stage.begin_offer(10.0, s(110), haiku);
        stage.until(s(20)).await;
        let state = stage.domains("a").await[0]["breaker"]["state"].clone();
        all_whole(&offered.await);
        assert!(["open", "half_open"].contains(&state.as_str().unwrap()), "{state}");
        let of = |name: &str| stage.truth(&format!("{name}.test"));
        // Five in a row open it, whatever was under way then comes with them, and one now and then.
        assert!((5..=14).contains(&of("a").refused("fault-500")), "{}", of("a").refused("fault-500"));
        let served = |name: &str, from, to| of(name).between(name, from, to).0;
        for name in ["a", "b", "c"] {
            assert!(served(name, 0, 10) > 10, "{name} in the beginning");
            assert!(served(name, 100, 110) > 10, "{name} in the end: {:?}", stage.truth("a.test"));
        }
        assert_eq!(stage.domains("a").await[0]["breaker"]["state"], "closed");
    });
}

#[test]
fn a_rejected_key_is_tried_again_until_it_is_good() {
    let config = ["north", "south"].map(|name| organisation(name, "api.test")).concat();
    let config = config + "[clocks]\nkey_rejected = \"8 s\"\n";
    play(&config, &[("api.test", include_str!("scenarios/keys.toml"))], async |stage| {
        let offered = stage.begin_offer(6.0, s(80), haiku);
        stage.until(s(20)).await;
        let aside = "tidegate_upstream_keys_aside{organisation=\"south\"}";
        assert_eq!(stage.metric(aside).await, 1.0);
        let shown = stage.domains("south").await[0]["keys"][0]["put_aside_for_ms"].as_u64();
        assert!(shown > Some(0), "{shown:?}");
        all_whole(&offered.await);
        let truth = stage.truth("api.test");
        let rejected = truth.refused("401");
        assert!((3..=10).contains(&rejected), "every eight seconds of thirty: {rejected}");
        for (name, from, to) in [("north", 0, 10), ("south", 0, 10), ("north", 20, 40), ("south", 50, 80)] {
            assert!(truth.between(name, from, to).0 > 10, "{name} from {from}");
        }
        assert_eq!(truth.between("south", 11, 40).0, 0);
        assert_eq!(stage.metric(aside).await, 0.0);
    });
}

#[test]
fn the_first_of_many_with_the_same_beginning_fills_the_cache_for_all() {
    let text = "every word of this is the same for all of them. ".repeat(500);
    let mark = json!({"type": "ephemeral"});
    let ask = |n: usize| {
        let mut ask = haiku(n);
        ask.body["system"] = json!([{"type": "text", "text": text, "cache_control": mark}]);
        ask
    };
    play(&organisation("north", "api.test"), &[("api.test", include_str!("scenarios/cache.toml"))], async |stage| {
        // Limits are known, the cache is cold.
        all_whole(&stage.crowd(1, haiku).await);
        let told = stage.crowd(20, ask).await;
        all_whole(&told);
        let truth = stage.truth("api.test");
        let (written, read) = (truth.tokens("cache_creation"), truth.tokens("cache_read"));
        assert!(written > 5_000 && read == 19 * written, "{written} written, {read} read");
        let longest = told.iter().map(super::stage::Told::took).max();
        assert!(longest < Some(s(4)), "one answer's beginning later than it would be: {longest:?}");
    });
}

#[test]
fn each_own_credential_has_its_own_quota_and_holds_nobody_else_up() {
    let config = organisation("ours", "api.test")
        + "[own_credentials]\nurl = \"http://api.test\"\n[[tenant]]\nname = \"own\"\nconcurrent_streams = 30\n";
    play(&config, &[("api.test", include_str!("scenarios/own.toml"))], async |stage| {
        let by = |key: &'static str| move |n: usize| haiku(n).by(key);
        // What its organisation may do is learned from the first answer.
        for key in ["sk-ant-small-1", "sk-ant-large-1", "tg_whatever"] {
            all_whole(&stage.crowd(1, by(key)).await);
        }
        let flood = stage.begin_crowd(40, by("sk-ant-small-1"));
        let others = [stage.begin_crowd(25, by("sk-ant-large-1")), stage.begin_crowd(25, by("tg_whatever"))];
        for others in others {
            let told = others.await;
            all_whole(&told);
            let longest = told.iter().map(super::stage::Told::took).max();
            assert!(longest < Some(s(5)), "{longest:?}");
        }
        let told = flood.await;
        all_whole(&told);
        let longest = told.iter().map(super::stage::Told::took).max();
        assert!(longest > Some(s(30)), "one a second: {longest:?}");
        let truth = stage.truth("api.test");
        assert!(truth.refused("429") <= 2, "{}", truth.refused("429"));
        let rows = stage.domains("own").await;
        assert_eq!(rows.len(), 2, "a domain for each credential: {rows:?}");
        let limits: Vec<_> = rows.iter().map(|row| row["limits"]["requests"]["per_minute"].as_u64()).collect();
        assert!(limits.contains(&Some(60)) && limits.contains(&Some(3_000)), "{limits:?}");
    });
}
