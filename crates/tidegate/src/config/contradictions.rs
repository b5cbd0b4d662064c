//! Settings that are each possible and together are not.

use super::places::Places;
use super::{Config, ConfigError};
use std::collections::BTreeSet;
use std::time::Duration;
use tidegate_gateway::Organisation;
use tidegate_schedule::JITTER_MAX;
use tidegate_upstream::Transport;

/// The most WebSockets one thread keeps open for a key.
const SPARES_MAX: usize = 64;

/// Settings that are each possible and together are not.
pub(super) fn contradictions(places: &Places<'_>, config: &Config) -> Result<(), ConfigError> {
    let (limits, clocks) = (&config.settings.limits, &config.settings.clocks);
    let weights = config.settings.schedule.band_weights;
    let rules: [(bool, &str, &str, &str); 20] = [
        (limits.body_bytes == 0, "limits", "body_bytes", "is zero: no request could be taken"),
        (limits.file_bytes == 0, "limits", "file_bytes", "is zero: no file could be uploaded"),
        (limits.batch_bytes == 0, "limits", "batch_bytes", "is zero: no batch could be made"),
        (limits.connections == 0, "limits", "connections", "is zero: no client could connect"),
        (limits.streams == 0, "limits", "streams", "is zero: no stream of HTTP/2 or a WebSocket could begin"),
        (limits.connection_streams == 0, "limits", "connection_streams", "is zero: no request could be sent"),
        (
            limits.body_bytes > limits.bodies_bytes,
            "limits",
            "body_bytes",
            "is over bodies_bytes, so the largest body could never be taken; raise bodies_bytes",
        ),
        (
            limits.backlog_merge_bytes > limits.backlog_bytes,
            "limits",
            "backlog_merge_bytes",
            "is over backlog_bytes, so nothing would ever be merged; lower it",
        ),
        (
            limits.backlog_bytes > limits.backlogs_bytes,
            "limits",
            "backlog_bytes",
            "is over backlogs_bytes; raise backlogs_bytes",
        ),
        (
            limits.journal_bytes > limits.journals_bytes,
            "limits",
            "journal_bytes",
            "is over journals_bytes; raise journals_bytes",
        ),
        (
            limits.journal_bytes > limits.durable_bytes,
            "limits",
            "durable_bytes",
            "is under journal_bytes: a durable stream could not be kept",
        ),
        (
            config.settings.sockets.model.is_empty(),
            "sockets",
            "model",
            "is empty: prompts that name no model could not be asked",
        ),
        (
            config.settings.sockets.max_tokens == 0,
            "sockets",
            "max_tokens",
            "is zero: prompts that do not say could not be answered",
        ),
        (
            clocks.first_byte > clocks.first_byte_large,
            "clocks",
            "first_byte",
            "is over first_byte_large, which is meant for slower starts",
        ),
        (
            clocks.progress > clocks.progress_unseen,
            "clocks",
            "progress",
            "is over progress_unseen, which is meant for longer silences",
        ),
        (clocks.drain > Duration::from_secs(600), "clocks", "drain", "is over 10 min, the most a drain may take"),
        (
            clocks.hand_over > Duration::from_secs(86_400),
            "clocks",
            "hand_over",
            "is over 24 h, the most a process that has handed over may stay",
        ),
        (
            config.settings.schedule.retry.attempts_max == 0,
            "retry",
            "attempts_max",
            "is zero: no request would ever be sent",
        ),
        (
            config.settings.schedule.jitter > JITTER_MAX,
            "queue",
            "jitter",
            "is over 10 s: so much of each limit would be kept back that little of it could be used",
        ),
        (
            weights.contains(&0),
            "queue",
            ["weight_interactive", "weight_normal", "weight_background"]
                [weights.iter().position(|w| *w == 0).unwrap_or(0)],
            "is zero: its requests would wait until they age; 1 is the least",
        ),
    ];
    for (broken, table, key, why) in rules {
        if broken {
            return Err(places.wrong(table, 0, key, why));
        }
    }
    let pool = config.settings.pool;
    let unusable = [
        ("http2_start", pool.http2_start.is_zero(), "no HTTP/2 connection could be used"),
        ("http2_age", pool.http2_age.is_zero(), "no HTTP/2 connection could be used"),
        ("socket_start", pool.socket_start.is_zero(), "no WebSocket could be used"),
        ("socket_age", pool.socket_age.is_zero(), "no WebSocket could be used"),
        ("socket_ping", pool.socket_ping.is_zero(), "every WebSocket would be dead at once"),
        ("socket_streams", pool.socket_streams == 0, "no WebSocket could carry a stream"),
    ];
    if let Some((key, _, why)) = unusable.into_iter().find(|(_, is_zero, _)| *is_zero) {
        return Err(places.wrong("pool", 0, key, &format!("is zero: {why}")));
    }
    if pool.socket_spares > SPARES_MAX {
        return Err(places.wrong("pool", 0, "socket_spares", "is over 64, and each thread keeps so many for each key"));
    }
    let speaks_prompts = |o: &Organisation| o.lanes.iter().any(|lane| lane.transport() == Transport::Prompt);
    let organisations = &config.settings.organisations;
    if let Some(n) = organisations.iter().position(speaks_prompts)
        && !organisations.iter().all(speaks_prompts)
    {
        let why =
            "is \"prompt\", and others are not: what may be asked could not be told before a request has its place";
        return Err(places.wrong("organisation", n, "transport", why));
    }
    for origin in &config.settings.sockets.origins {
        // What a browser sends: a scheme and a host, and nothing behind them.
        let host = origin.split_once("://").map(|(_, host)| host);
        if host.is_none_or(|host| host.is_empty() || host.contains(['/', '?', '#', ' '])) {
            let why = format!("`{origin}` is no origin; write for example \"https://app.example.com\"");
            return Err(places.wrong("sockets", 0, "origins", &why));
        }
    }
    let mut names = BTreeSet::new();
    for (n, organisation) in config.settings.organisations.iter().enumerate() {
        if !names.insert(&organisation.name) {
            return Err(places.wrong("organisation", n, "name", "two organisations have this name"));
        }
    }
    let times = [
        ("client_tls", clocks.client_tls),
        ("client_head", clocks.client_head),
        ("client_idle", clocks.client_idle),
        ("heartbeat", clocks.heartbeat),
        ("gap", clocks.gap),
        ("probe", clocks.probe),
        ("probe_answer", clocks.probe_answer),
        ("whole", clocks.whole),
        ("socket_ping", clocks.socket_ping),
        ("socket_close", clocks.socket_close),
        ("spend_cap", clocks.spend_cap),
    ];
    for (key, span) in times {
        if span.is_zero() {
            return Err(places.wrong("clocks", 0, key, "is zero: everything would time out at once"));
        }
    }
    Ok(())
}
