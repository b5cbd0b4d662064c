//! The admin port of a running gateway: where it is, and one question to it.
//!
//! It has no authentication and is on loopback by default, so a question is a line of text on a
//! connection of its own. What cannot be reached is told with the flag that says where.

use super::ask::connect;
use super::{Failed, chat::percent_encoded};
use crate::cli::{AdminAddress, AdminPlace};
use crate::config::Config;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// What an answer may take. The admin port waits behind nothing but the control thread, and for
/// `/usage` behind the disk.
const ASK_MAX: Duration = Duration::from_secs(30);
/// The longest answer: ten thousand rows of a kilobyte.
const PAGE_BYTES_MAX: u64 = 16 << 20;

/// An admin port.
#[derive(Clone, Debug)]
pub(super) struct Admin(AdminAddress);

impl Admin {
    /// The flag before the file before the default. A gateway that listens everywhere is asked here.
    pub(super) fn find(place: &AdminPlace) -> Result<Self, Failed> {
        let mut all = match (&place.admin, &place.config) {
            (Some(at), _) => at.clone(),
            (None, Some(file)) => AdminAddress(vec![Config::admin_in(file).map_err(Failed::because)?]),
            (None, None) => AdminAddress(vec![Config::default().admin]),
        };
        for at in &mut all.0 {
            if at.port() == 0 {
                return Err(Failed("the admin port is 0, any free one: say with --admin which it was".to_owned()));
            }
            if at.ip().is_unspecified() {
                at.set_ip(match at.ip() {
                    IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                });
            }
        }
        Ok(Admin(all))
    }

    /// Where it is.
    pub(super) fn address(self) -> AdminAddress {
        self.0
    }

    /// Asks for a page of JSON.
    pub(super) fn get(&self, path: &str, query: &[(&str, Option<&str>)]) -> Result<Value, Failed> {
        let pairs = query.iter().filter_map(|(key, value)| Some(format!("{key}={}", percent_encoded((*value)?))));
        let query = pairs.collect::<Vec<_>>().join("&");
        self.ask("GET", &if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") })
    }

    /// Asks for a stream to be cancelled.
    pub(super) fn cancel(&self, id: &str) -> Result<Value, Failed> {
        self.ask("DELETE", &format!("/streams/{}", percent_encoded(id)))
    }

    fn ask(&self, method: &str, path: &str) -> Result<Value, Failed> {
        let answer = self.exchange(method, path).map_err(|e| {
            Failed(format!(
                "no gateway answers at its admin port {}: {e}; say where it is with --admin or --config",
                self.0
            ))
        })?;
        let foreign = || Failed(format!("what answers at {} is no admin port of a gateway", self.0));
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(foreign)?;
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next()).ok_or_else(foreign)?;
        let value: Value = serde_json::from_str(body).map_err(|_| foreign())?;
        if status.starts_with('2') {
            return Ok(value);
        }
        Err(Failed(value["error"]["message"].as_str().map_or_else(|| format!("status {status}"), str::to_owned)))
    }

    fn exchange(&self, method: &str, path: &str) -> std::io::Result<String> {
        let (mut stream, at) = connect(&self.0.0, ASK_MAX)?;
        stream.set_read_timeout(Some(ASK_MAX))?;
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    }
}
