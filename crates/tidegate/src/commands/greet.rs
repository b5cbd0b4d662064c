//! What a start says: where everything is, as absolute paths, and how to try it.

use super::say;
use super::simulate::Running;
use crate::config::Config;
use crate::process::Room;
use std::net::SocketAddr;
use std::path::Path;
use tidegate_gateway::{Organisation, UsageFile};
use tidegate_transport::Target;

/// Organisations that are told one by one.
const UPSTREAMS_MAX: usize = 8;

/// What of a configuration is told.
pub(super) struct Told {
    /// Each key by its label, and its host.
    pub(super) upstreams: Vec<String>,
    /// What is done with personal data.
    pub(super) redact: String,
    /// Lines of a name and what is there.
    lines: Vec<(&'static str, String)>,
    /// Whether anybody on this machine is served.
    open: bool,
}

impl Told {
    /// Of `config`, by which what was used is kept in `usage`.
    pub(super) fn of(config: &Config, usage: &UsageFile, simulates: bool) -> Self {
        let settings = &config.settings;
        let shown = |path: &Path| path.display().to_string();
        let mut lines = Vec::new();
        lines.extend(config.path.as_deref().map(|path| ("config", shown(path))));
        if !simulates {
            let all = &settings.organisations;
            lines.extend(all.iter().take(UPSTREAMS_MAX).map(|organisation| ("upstream", upstream(organisation))));
            if all.len() > UPSTREAMS_MAX {
                lines.push(("upstream", format!("and {} more", all.len() - UPSTREAMS_MAX)));
            }
            lines.extend(
                settings.own_credentials.iter().map(|lane| {
                    ("upstream", format!("{} for clients with a credential of their own", lane.target.host))
                }),
            );
        }
        match &config.conversations {
            Some(path) => lines.push(("memory", shown(path))),
            None if simulates => lines.push(("memory", "a scratch file, gone when this ends".to_owned())),
            None => {}
        }
        let kept = match (usage, &config.usage) {
            (_, Some(path)) => shown(path),
            (UsageFile::Memory, None) => "in memory, gone when this ends".to_owned(),
            (_, None) => "with the conversations".to_owned(),
        };
        lines.push(("usage", kept));
        lines.extend(
            config
                .keys_file
                .as_ref()
                .map(|(path, file)| ("keys", format!("{}, {}", shown(path), counted(file.keys.len(), "key")))),
        );
        let redact = config.redact.told();
        lines.push(("redact", redact.clone()));
        let lanes = settings.organisations.iter().flat_map(|o| &o.lanes);
        let upstreams = lanes.map(|lane| format!("{} at {}{}", lane.label, lane.target.host, through(&lane.target)));
        let open = settings.keys.is_empty() && !settings.keys_only;
        Told { upstreams: upstreams.collect(), redact, lines, open }
    }

    /// What a newcomer needs to see.
    pub(super) fn greet(&self, gateway: &str, admin: SocketAddr, simulator: Option<&Running>, room: Room) {
        say(format_args!("Tidegate {}", env!("CARGO_PKG_VERSION")));
        say(format_args!("gateway    {gateway}"));
        say(format_args!("admin      http://{admin}"));
        if let Some(simulator) = simulator {
            say(format_args!("simulator  http://{}", simulator.api));
            say(format_args!("truth      http://{}", simulator.truth));
        }
        for (name, what) in &self.lines {
            say(format_args!("{name:<10} {what}"));
        }
        say(format_args!(
            "room       {} open files: {} streams to an upstream of HTTP/1.1, {} of HTTP/2 (ulimit -n)",
            room.files, room.streams_http1, room.streams_http2
        ));
        say("");
        if self.open {
            say("No client keys are configured: any key is taken, and only clients on this machine are served.");
            say("");
        }
        let key = if self.open { "any" } else { "YOUR_KEY" };
        say("Try it:");
        say(format_args!(
            "  curl -N {gateway}/v1/messages -H 'content-type: application/json' -H 'x-api-key: {key}' -H 'anthropic-version: 2023-06-01' -d '{{\"model\":\"claude-haiku-5-5\",\"max_tokens\":200,\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"
        ));
        say("Python:");
        say(format_args!("  client = anthropic.Anthropic(base_url=\"{gateway}\", api_key=\"{key}\")"));
        say("TypeScript:");
        say(format_args!("  const client = new Anthropic({{ baseURL: \"{gateway}\", apiKey: \"{key}\" }});"));
        say("Look inside:");
        say(format_args!("  curl http://{admin}/metrics    curl http://{admin}/streams    curl http://{admin}/usage"));
        say("");
        say("ready");
    }
}

/// Says so if others than this machine may reach the operators' port.
pub(super) fn warn_of_admin(admin: SocketAddr) {
    if !admin.ip().is_loopback() {
        tracing::warn!(target: "tidegate", %admin, "operators connect from other machines too, and without authentication: whoever reaches this port can read what is under way and cancel it");
    }
}

/// An organisation's name, its host and its keys.
fn upstream(organisation: &Organisation) -> String {
    let keys = counted(organisation.lanes.len(), "key");
    let at = organisation.lanes.first().map_or_else(String::new, |lane| {
        let target = &lane.target;
        let usual = if target.tls { 443 } else { 80 };
        let port = if target.port == usual { String::new() } else { format!(":{}", target.port) };
        format!(" at {}{port}{}", target.host, through(target))
    });
    format!("{}{at}, {keys}", organisation.name)
}

fn through(target: &Target) -> String {
    target.proxy.as_ref().map_or_else(String::new, |proxy| format!(" through {proxy}"))
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
