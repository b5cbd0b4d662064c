//! The way out through a proxy: which, and who we are to it. What is said to it is `tunnel`'s.

use std::fmt;
use tidegate_base::Secret;

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyKind {
    /// HTTP CONNECT.
    Connect,
    /// HTTP CONNECT, over TLS to the proxy.
    ConnectTls,
    /// SOCKS5; names are resolved by the proxy.
    Socks5,
}

/// A proxy, and who we are to it.
#[derive(Clone)]
pub struct Proxy {
    /// What it speaks.
    pub kind: ProxyKind,
    /// Its name or address literal.
    pub host: String,
    /// Its port.
    pub port: u16,
    pub(super) login: Option<(String, Secret)>,
}

/// Why a proxy's URL cannot be used. Names neither user nor password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrlError(pub String);

impl fmt::Display for ProxyUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProxyUrlError {}

impl Proxy {
    /// All it is, to tell one from another.
    fn place(&self) -> (ProxyKind, &str, u16, Option<(&str, &str)>) {
        let login = self.login.as_ref().map(|(user, password)| (user.as_str(), password.expose()));
        (self.kind, &self.host, self.port, login)
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Proxy {}

impl PartialOrd for Proxy {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Proxy {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

/// The URL without user and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Connect => "http",
            ProxyKind::ConnectTls => "https",
            ProxyKind::Socks5 => "socks5h",
        };
        write!(f, "{scheme}://{}:{}", bracketed(&self.host), self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// IPv6 addresses stand in brackets before a port.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

impl Proxy {
    /// Reads `scheme://[user:password@]host[:port]`. Schemes are `http`, `https`, `socks5h` and
    /// `socks5`, which is taken for `socks5h`; without a scheme it is `http`, as curl has it.
    /// User and password may be percent-encoded.
    pub fn parse(url: &str) -> Result<Self, ProxyUrlError> {
        let wrong = |why: &str| {
            ProxyUrlError(format!(
                "{why}; write for example \"http://proxy.example.com:3128\" or \"socks5h://user:password@10.0.0.1:1080\""
            ))
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (kind, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (ProxyKind::Connect, 80),
            "https" => (ProxyKind::ConnectTls, 443),
            "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
            other if other.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                return Err(wrong(&format!("a proxy of the kind `{other}` is not spoken to")));
            }
            // It may be the beginning of a password.
            _ => return Err(wrong("what stands before `://` is no kind of proxy")),
        };
        let rest = rest.split_once('/').map_or(Ok(rest), |(before, path)| {
            if path.is_empty() { Ok(before) } else { Err(wrong("a proxy's URL has no path")) }
        })?;
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (
                host,
                port.parse()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| wrong("a proxy's port is not a number from 1 to 65535"))?,
            ),
            _ => (place, default_port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'));
        if host.is_empty() || !plain {
            return Err(wrong("a proxy's URL has no usable host name"));
        }
        let login = login.map(|login| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let decoded = (decoded(user), decoded(password));
            let (Some(user), Some(password)) = decoded else {
                return Err(wrong("a proxy's user or password is wrongly percent-encoded"));
            };
            // RFC 1929 has one byte for each length.
            if user.is_empty() || user.len() > 255 || password.len() > 255 {
                return Err(wrong("a proxy's user has 1 to 255 bytes, and its password at most 255"));
            }
            Ok((user, Secret::new(password)))
        });
        Ok(Proxy { kind, host: host.to_owned(), port, login: login.transpose()? })
    }
}

/// Undoes percent-encoding; `None` if it is wrong, or no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_curl_reads_them() {
        let read = |url: &str| Proxy::parse(url).unwrap().to_string();
        assert_eq!(read("proxy:3128"), "http://proxy:3128");
        assert_eq!(read("http://proxy/"), "http://proxy:80");
        assert_eq!(read("HTTPS://proxy"), "https://proxy:443");
        assert_eq!(read("socks5://[::1]"), "socks5h://[::1]:1080");
        let with = Proxy::parse("socks5h://us%40er:p%3Aw@h:1").unwrap();
        let (user, password) = with.login.as_ref().unwrap();
        assert_eq!((user.as_str(), password.expose()), ("us@er", "p:w"));
        assert_ne!(with, Proxy::parse("socks5h://h:1").unwrap());
    }

    #[test]
    fn a_wrong_url_is_refused_and_its_password_not_shown() {
        for url in [
            "",
            "ftp://u:geheim@h",
            "http://u:geheim@",
            "http://u:geheim@h:0",
            "http://u:geheim@h:x",
            "http://:geheim@h",
            "http://u%zz:geheim@h",
            "http://u%+f:geheim@h",
            "u:geheim://x@h:1",
            "http://u:geheim@h/path",
            "http://u:geheim@h h:1",
        ] {
            let error = Proxy::parse(url).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{error}");
        }
        let shown = format!("{0} {0:?}", Proxy::parse("http://u:geheim@h").unwrap());
        assert!(!shown.contains("geheim") && !shown.contains("u:"), "{shown}");
    }
}
