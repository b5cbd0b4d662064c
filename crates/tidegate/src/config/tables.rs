//! The tables of plain settings, each over its defaults.

use super::values::{Becomes, Size, Time, table};
use std::net::SocketAddr;
use std::time::Duration;
use tidegate_gateway::{Clocks, Limits, Sockets};
use tidegate_schedule::{RetryRules, Rules};
use tidegate_transport::DialClocks;
use tidegate_upstream::PoolRules;

table!(ClocksTable sets Clocks {
    client_tls: Time,
    client_head: Time,
    client_body_stall: Time,
    client_write_stall: Time,
    client_idle: Time,
    heartbeat: Time,
    upload_stall: Time,
    first_byte: Time,
    first_byte_large: Time,
    gap: Time,
    probe: Time,
    probe_answer: Time,
    progress: Time,
    progress_unseen: Time,
    whole: Time,
    drain: Time,
    hand_over: Time,
    socket_ping: Time,
    socket_close: Time,
    detach_grace: Time,
    stream_kept: Time,
    key_rejected: Time,
    spend_cap: Time,
});

table!(DialTable sets DialClocks {
    connect: Time,
    proxy: Time,
    tls: Time,
});

table!(LimitsTable sets Limits {
    body_bytes: Size,
    file_bytes: Size,
    batch_bytes: Size,
    bodies_bytes: Size,
    large_body_bytes: Size,
    backlog_bytes: Size,
    backlog_merge_bytes: Size,
    backlogs_bytes: Size,
    journal_bytes: Size,
    journals_bytes: Size,
    durable_bytes: Size,
    answer_bytes: Size,
    connections: usize,
    streams: usize,
    connection_streams: u32,
    passthrough_tokens: u64,
});

/// `[sockets]`. Not a table of quantities: its values are words.
#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SocketsTable {
    origins: Option<Vec<String>>,
    model: Option<String>,
    max_tokens: Option<u64>,
    echo: Option<bool>,
}

impl SocketsTable {
    #[cfg(test)]
    pub(super) const KEYS: &[&str] = &["origins", "model", "max_tokens", "echo"];

    /// Sets what stands in the table over `sockets`.
    pub(super) fn set(self, sockets: &mut Sockets) {
        sockets.origins = self.origins.unwrap_or(std::mem::take(&mut sockets.origins));
        sockets.model = self.model.unwrap_or(std::mem::take(&mut sockets.model));
        sockets.max_tokens = self.max_tokens.unwrap_or(sockets.max_tokens);
        sockets.echo = self.echo.unwrap_or(sockets.echo);
    }
}

table!(RetryTable sets RetryRules {
    attempts_max: u32,
    base: Time,
    cap: Time,
    budget: u32,
});

table!(PoolTable sets PoolRules {
    idle_max: usize,
    idle_keep: Time,
    http2_start: Time,
    http2_age: Time,
    socket_start: Time,
    socket_age: Time,
    socket_ping: Time,
    socket_close: Time,
    socket_spares: usize,
    socket_streams: usize,
});

table!(QueueTable sets QueueKeys {
    waiting_max: usize,
    wait_max_interactive: Time,
    wait_max_normal: Time,
    wait_max_background: Time,
    weight_interactive: u32,
    weight_normal: u32,
    weight_background: u32,
    ageing: Time,
    jitter: Time,
});

/// The queue's rules as the file spells them: the bands by name.
pub(super) struct QueueKeys {
    waiting_max: usize,
    wait_max_interactive: Duration,
    wait_max_normal: Duration,
    wait_max_background: Duration,
    weight_interactive: u32,
    weight_normal: u32,
    weight_background: u32,
    ageing: Duration,
    jitter: Duration,
}

impl QueueTable {
    /// Sets what stands in the table over `rules`.
    pub(super) fn over(&self, rules: &mut Rules) {
        let [wait_max_interactive, wait_max_normal, wait_max_background] = rules.queue.wait_max;
        let [weight_interactive, weight_normal, weight_background] = rules.band_weights;
        let mut keys = QueueKeys {
            waiting_max: rules.queue.waiting_max,
            wait_max_interactive,
            wait_max_normal,
            wait_max_background,
            weight_interactive,
            weight_normal,
            weight_background,
            ageing: rules.ageing,
            jitter: rules.jitter,
        };
        self.set(&mut keys);
        rules.queue.waiting_max = keys.waiting_max;
        rules.queue.wait_max = [keys.wait_max_interactive, keys.wait_max_normal, keys.wait_max_background];
        rules.band_weights = [keys.weight_interactive, keys.weight_normal, keys.weight_background];
        (rules.ageing, rules.jitter) = (keys.ageing, keys.jitter);
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListenTable {
    pub(super) address: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) threads: Option<u8>,
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    #[default]
    Text,
    Json,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogTable {
    pub(super) format: Format,
    pub(super) level: Option<String>,
}
