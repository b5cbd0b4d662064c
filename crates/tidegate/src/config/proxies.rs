//! Which proxy leads to an upstream: what its table says, else the usual variables of the
//! environment.
//!
//! `HTTPS_PROXY` is asked for an upstream that is reached over TLS and `HTTP_PROXY` for another, then
//! `ALL_PROXY`; the names in small letters first, as curl does. What `NO_PROXY` lists and this machine
//! itself are reached without one. A proxy that a table names is used whatever the environment says.

use super::organisation::{Env, Variables};
use super::secrets::secret;
use std::net::IpAddr;
use std::path::PathBuf;
use tidegate_transport::{Proxy, Target};

/// `proxy` of an upstream: a URL, `none`, or where a URL with a password is kept.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "a proxy is a URL, \"none\", { env = \"...\" } or { file = \"...\" }")]
pub(super) enum ProxyChoice {
    Said(String),
    Kept { env: Option<String>, file: Option<PathBuf> },
}

impl ProxyChoice {
    /// The file it is kept in.
    pub(super) fn file(&mut self) -> Option<&mut PathBuf> {
        match self {
            ProxyChoice::Kept { file, .. } => file.as_mut(),
            ProxyChoice::Said(_) => None,
        }
    }
}

/// The proxy to `target`, of its table's `choice` or the environment's.
pub(super) fn proxy(
    choice: Option<&ProxyChoice>,
    target: &Target,
    variables: Variables<'_>,
) -> Result<Option<Proxy>, String> {
    let url = match choice {
        Some(ProxyChoice::Said(word)) if word == "none" => return Ok(None),
        Some(ProxyChoice::Said(url)) => url.clone(),
        Some(ProxyChoice::Kept { env: variable, file }) => {
            secret(None, variable.as_ref(), file.as_ref(), variables.secrets)?
        }
        None => return of_environment(target, variables.machine),
    };
    Proxy::parse(&url).map(Some).map_err(|e| e.0)
}

/// The proxy to `target` that the usual variables name.
pub(super) fn of_environment(target: &Target, env: Env<'_>) -> Result<Option<Proxy>, String> {
    let either = |small: &str| {
        let names = [small.to_owned(), small.to_ascii_uppercase()];
        names
            .into_iter()
            .find_map(|name| env(&name).filter(|value| !value.trim().is_empty()).map(|value| (name, value)))
    };
    let own = if target.tls { "https_proxy" } else { "http_proxy" };
    let Some((name, url)) = either(own).or_else(|| either("all_proxy")) else { return Ok(None) };
    let without = either("no_proxy").map_or_else(String::new, |(_, list)| list);
    if is_this_machine(&target.host) || is_listed(&without, &target.host, target.port) {
        return Ok(None);
    }
    Proxy::parse(url.trim()).map(Some).map_err(|e| format!("the environment variable {name}: {e}"))
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Whether `NO_PROXY` has it: names with all that is below them, addresses, networks (`10.0.0.0/8`),
/// each with a port or without, and `*` for everything.
fn is_listed(list: &str, host: &str, port: u16) -> bool {
    let host = host.to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = entry.split_once('/') {
            let network = network.parse().ok().zip(bits.parse().ok());
            return address.zip(network).is_some_and(|(ip, (network, bits))| is_within(ip, network, bits));
        }
        let bare = entry.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return address == Some(ip);
        }
        let (name, only) = match entry.rsplit_once(':').map(|(name, port)| (name, port.parse::<u16>())) {
            Some((name, Ok(port))) => (name, Some(port)),
            _ => (entry.as_str(), None),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']').trim_start_matches("*.").trim_start_matches('.');
        let ends = host.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'));
        !name.is_empty() && ends && only.is_none_or(|only| only == port)
    })
}

/// Whether `ip` is in the network of `bits` bits.
fn is_within(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    fn same(a: u128, b: u128, width: u32, bits: u32) -> bool {
        bits == 0 || bits <= width && (a ^ b) >> (width - bits) == 0
    }
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32, bits),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128, bits),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_transport::HttpOffer;

    fn to(host: &str, tls: bool) -> Target {
        Target { host: host.into(), port: if tls { 443 } else { 80 }, tls, http: HttpOffer::Auto, proxy: None }
    }

    fn chosen(variables: &[(&str, &str)], target: &Target) -> Option<String> {
        let env = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        of_environment(target, &env).unwrap().map(|proxy| proxy.to_string())
    }

    #[test]
    fn the_variable_follows_the_upstreams_scheme() {
        let all = [("https_proxy", "a:1"), ("HTTPS_PROXY", "b:1"), ("HTTP_PROXY", "c:1"), ("ALL_PROXY", "socks5h://d")];
        assert_eq!(chosen(&all, &to("x.example", true)).unwrap(), "http://a:1");
        assert_eq!(chosen(&all, &to("x.example", false)).unwrap(), "http://c:1");
        assert_eq!(chosen(&all[3..], &to("x.example", true)).unwrap(), "socks5h://d:1080");
        assert_eq!(chosen(&[("https_proxy", ""), ("ALL_PROXY", "d:2")], &to("x.example", true)).unwrap(), "http://d:2");
        assert_eq!(chosen(&[], &to("x.example", true)), None);
        for here in ["localhost", "127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(chosen(&all, &to(here, true)), None, "{here}");
        }
    }

    #[test]
    fn a_wrong_variable_is_named_and_its_value_not_shown() {
        let env = |name: &str| (name == "HTTPS_PROXY").then(|| "gopher://u:geheim@h".to_owned());
        let error = of_environment(&to("x.example", true), &env).unwrap_err();
        assert!(error.contains("HTTPS_PROXY") && !error.contains("geheim"), "{error}");
    }

    #[test]
    fn no_proxy_lists_names_addresses_and_networks() {
        let cases: [(&str, &str, bool); 23] = [
            ("*", "a.example", true),
            ("example", "a.example", true),
            (".example", "a.example", true),
            ("*.example", "a.example", true),
            ("a.example", "A.Example", true),
            ("ample", "a.example", false),
            ("b.example,a.example", "a.example", true),
            ("b.example a.example", "a.example", true),
            ("a.example:443", "a.example", true),
            ("a.example:80", "a.example", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("10.0.0.0/33", "10.0.0.0", false),
            ("fd00::/8", "fd12::1", true),
            ("[fd12::1]", "fd12::1", true),
            ("[fd12::1]:443", "fd12::1", true),
            ("[fd12::1]:80", "fd12::1", false),
            ("10.1.2.3:443", "10.1.2.3", true),
            ("FD12:0::1", "fd12::1", true),
            ("a.example", "ba.example", false),
            ("10.0.0.0/8", "ten.example", false),
            (",, ", "a.example", false),
        ];
        for (list, host, listed) in cases {
            assert_eq!(is_listed(list, host, 443), listed, "{list} {host}");
        }
    }
}
