//! The load of a soak: the upstream's scenario, Tidegate's configuration, and the crowds.
//!
//! The upstream is the full simulator at a real pace with faults of every kind a production night
//! has; each crowd says in a `simulate` header how long and how fast its answers are. Tidegate has
//! two upstreams, one over HTTP/1.1 and one over HTTP/2, so that the pools of both are at work, and
//! everything else is at its default. All numbers are for 2,000 open streams and shrink or grow with
//! them; they are chosen so that all processes together take well below one core.

use std::net::SocketAddr;
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_bench::{Bounds, Crowd, Manner, Mode, Plan};
use tidegate_gateway::KeyHash;

/// The key of all clients.
const CLIENT_KEY: &str = "tg_bench_soak_client_key";
/// What a request may take; the longest streams are planned for ten minutes.
const REQUEST_MAX: Duration = Duration::from_secs(20 * 60);
/// The longest time until all clients have come.
const RAMP_MAX: Duration = Duration::from_secs(30);

/// The simulator's scenario.
pub(super) const SCENARIO: &str = r#"about = "A soak: real streams at a real pace, and everything that goes wrong in a night."

[quota]
tier = "unlimited"

[[fault]]
do = ["reset-at:in-data"]
probability = 0.01

[[fault]]
do = ["close-at:in-data"]
probability = 0.0005

[[fault]]
do = ["end-at:before-stop"]
probability = 0.005

[[fault]]
do = ["error-at:event-6"]
probability = 0.005

[[fault]]
do = ["garbage-at:event-9"]
probability = 0.002

[[fault]]
do = ["unknown-at:event-5"]
probability = 0.02

[[fault]]
do = ["stall-at:in-data:20 s"]
probability = 0.005

[[fault]]
do = ["stall-at:in-data:90 s"]
probability = 0.001

[[fault]]
do = ["reset-before-head"]
probability = 0.005

[[fault]]
do = ["slow-head:3 s"]
probability = 0.01

[[fault]]
do = ["status:529"]
probability = 0.01

[[fault]]
do = ["status:500"]
probability = 0.002

[[fault]]
do = ["status:429:1"]
probability = 0.0005

[[fault]]
do = ["one-byte"]
probability = 0.0005
"#;

/// tidegate.toml: defaults, one client key, the same upstream over both versions of HTTP.
pub(super) fn config(listen: SocketAddr, admin: SocketAddr, upstream: SocketAddr) -> String {
    let hash = KeyHash::of(CLIENT_KEY.as_bytes());
    let organisation = |name: &str, http: &str| {
        format!(
            "[[organisation]]\nname = \"{name}\"\nurl = \"http://{upstream}\"\nhttp = \"{http}\"\nkeys = [{{ value = \"sk-ant-{name}-1\" }}]\n\n"
        )
    };
    format!(
        "[listen]\naddress = \"{listen}\"\nadmin = \"{admin}\"\n\n{}{}[[client_key]]\ntenant = \"soak\"\nhash = \"{hash}\"\n",
        organisation("one", "1.1"),
        organisation("two", "2"),
    )
}

/// What a crowd asks the simulator for, and how.
struct Wish {
    /// Clients at 2,000 streams.
    clients: usize,
    mode: Mode,
    max_tokens: u32,
    simulate: &'static str,
    /// Seconds before each request.
    pause_s: (f64, f64),
}

fn seconds((least, most): (f64, f64)) -> Bounds {
    (Duration::from_secs_f64(least), Duration::from_secs_f64(most))
}

/// The crowds for about `streams` open streams at `url`, within a load of `span`.
pub(super) fn crowds(url: &str, streams: usize, span: Duration) -> Vec<Crowd> {
    let crowd = |name, seed, wish: Wish| {
        let mut plan = Plan::new(url);
        plan.mode = wish.mode;
        plan.concurrency = (wish.clients * streams / 2_000).max(1);
        plan.key = Some(Secret::new(CLIENT_KEY));
        plan.max_tokens = wish.max_tokens;
        plan.headers = vec![("simulate".to_owned(), wish.simulate.to_owned())];
        plan.request_timeout = REQUEST_MAX;
        plan.ramp = (span / 10).min(RAMP_MAX);
        plan.seed = seed;
        Crowd { variants: 16, pause: seconds(wish.pause_s), ..Crowd::new(name, plan) }
    };
    let sse = |clients, simulate| Wish { clients, mode: Mode::Sse, max_tokens: 8_192, simulate, pause_s: (0.0, 1.0) };
    let json =
        |clients, max_tokens, simulate, pause_s| Wish { clients, mode: Mode::Json, max_tokens, simulate, pause_s };
    let leave = Manner::Leave(seconds((0.05, 15.0)));
    let dawdle = Manner::Dawdle(seconds((2.0, 8.0)));
    let slow_simulate = "event_ms=4, chars=100-200, output_tokens=40000-64000";
    let slow = Wish { max_tokens: 64_000, ..sse(10, slow_simulate) };
    let slow_http2 = Wish { max_tokens: 64_000, ..sse(10, slow_simulate) };
    let mut one_each = crowd("a connection a request", 9, json(20, 256, "event_ms=1, output_tokens=20-60", (0.1, 0.9)));
    one_each.plan.keep_alive = false;
    let mut large = crowd("bodies of 100 KB to 1 MB", 10, sse(6, "event_ms=20, output_tokens=20-200"));
    (large.plan.prompt_bytes, large.prompt_bytes_max) = (100_000, 1_000_000);
    large.pause = seconds((1.0, 5.0));
    let knocking = crowd("knocks", 11, json(4, 256, "", (0.1, 0.5)));
    vec![
        crowd("streams", 1, sse(1_100, "event_ms=400, output_tokens=100-500")),
        crowd("long streams", 2, sse(400, "event_ms=1000, output_tokens=500-2000")),
        Crowd { http2: true, ..crowd("streams, HTTP/2", 3, sse(240, "event_ms=300, output_tokens=100-500")) },
        Crowd { manner: leave, ..crowd("leaving", 4, sse(160, "event_ms=200, output_tokens=300-600")) },
        Crowd {
            manner: leave,
            http2: true,
            ..crowd("leaving, HTTP/2", 5, sse(80, "event_ms=200, output_tokens=300-600"))
        },
        Crowd { manner: dawdle, ..crowd("slow readers", 6, slow) },
        Crowd { manner: dawdle, http2: true, ..crowd("slow readers, HTTP/2", 7, slow_http2) },
        crowd("buffered", 8, json(40, 256, "event_ms=1, output_tokens=20-60", (0.2, 2.0))),
        one_each,
        crowd("buffered, assembled", 12, json(20, 4_096, "event_ms=20, output_tokens=200-1000", (1.0, 5.0))),
        large,
        Crowd { manner: Manner::Knock, ..knocking },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use tidegate_simulator::Scenario;

    #[test]
    fn the_scenario_is_one_and_has_what_a_night_has() {
        let scenario = Scenario::parse(SCENARIO).unwrap();
        assert!(scenario.bare.is_none() && scenario.faults.len() >= 10);
        for fault in ["reset-at", "close-at", "end-at", "status:429", "status:529", "stall-at", "garbage-at"] {
            assert!(SCENARIO.contains(fault), "{fault}");
        }
    }

    #[test]
    fn tidegate_takes_the_configuration_and_all_else_is_at_its_default() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = config(at(4600), at(4601), at(4610));
        let config = crate::config::Config::parse(Path::new("tidegate.toml"), &text, &|_| None).unwrap();
        assert!(config.check().is_ok() && config.settings.keys.len() == 1, "{text}");
        let tables: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
        assert_eq!(tables, ["[listen]", "[[organisation]]", "[[organisation]]", "[[client_key]]"]);
    }

    #[test]
    fn two_thousand_streams_are_two_thousand_and_few_are_few_of_each() {
        let span = Duration::from_secs(600);
        let streaming = |crowds: &[Crowd]| {
            let streams = crowds.iter().filter(|c| c.plan.mode == Mode::Sse && c.prompt_bytes_max < 1_000);
            streams.map(|c| c.plan.concurrency).sum::<usize>()
        };
        assert_eq!(streaming(&crowds("http://a", 2_000, span)), 2_000);
        let few = crowds("http://a", 20, span);
        assert!(few.iter().all(|c| c.plan.concurrency >= 1) && streaming(&few) < 30);
        assert_eq!(few[0].plan.ramp, RAMP_MAX);
    }
}
