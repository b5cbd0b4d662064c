//! What each peer is told, as text: configurations that do the same and no more.
//!
//! nginx and HAProxy forward everything to one upstream over kept connections, unbuffered, without
//! logs, on as many workers as Tidegate has threads by default. Tidegate runs at its defaults: it
//! asks for a client key, accounts, and keeps metrics.

use super::links::{Certificate, Links};
use std::net::SocketAddr;
use std::path::Path;
use tidegate_gateway::KeyHash;

/// The key clients of the compared gateways send.
pub(super) const CLIENT_KEY: &str = "tg_bench_peers_client_key";
/// Files a process may open, at most; what the issue's machine has.
const NGINX_FILES: usize = 20_000;

/// Where a peer listens and sends, and how.
pub(super) struct Wiring<'a> {
    pub(super) listen: SocketAddr,
    pub(super) upstream: SocketAddr,
    pub(super) links: Links,
    pub(super) certificate: Option<&'a Certificate>,
    pub(super) cores: usize,
}

impl Wiring<'_> {
    /// The certificate where the links are encrypted.
    fn tls(&self) -> Option<&Certificate> {
        self.certificate.filter(|_| self.links == Links::Tls)
    }
}

/// nginx.conf; `folder` takes its pid and temporary files. Over TLS there are more streams than one
/// worker has files for, so each gets a socket of its own and the kernel shares them out evenly.
pub(super) fn nginx(wiring: &Wiring<'_>, folder: &Path) -> String {
    let Wiring { listen, upstream, cores, .. } = wiring;
    let folder = folder.display();
    let (door, scheme) = match wiring.tls() {
        None => (format!("listen {listen} backlog=4096;"), "http"),
        Some(Certificate { chain, key }) => (
            format!(
                "listen {listen} ssl reuseport backlog=4096;\n        ssl_certificate {};\n        ssl_certificate_key {};\n        proxy_ssl_trusted_certificate {};\n        proxy_ssl_verify on;\n        proxy_ssl_name localhost;\n        proxy_ssl_session_reuse on;",
                chain.display(),
                key.display(),
                chain.display()
            ),
            "https",
        ),
    };
    format!(
        r#"daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
worker_processes {cores};
worker_rlimit_nofile {NGINX_FILES};
events {{
    worker_connections {NGINX_FILES};
}}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    upstream api {{
        server {upstream};
        keepalive 512;
        keepalive_requests 1000000;
    }}
    server {{
        {door}
        location / {{
            proxy_pass {scheme}://api;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 300s;
        }}
    }}
}}
"#
    )
}

/// haproxy.cfg.
pub(super) fn haproxy(wiring: &Wiring<'_>) -> String {
    let Wiring { listen, upstream, cores, .. } = wiring;
    let (door, server) = match (wiring.links, wiring.tls()) {
        (Links::Tls, Some(certificate)) => (
            format!(" ssl crt {}", certificate.chain.display()),
            format!(" ssl verify required ca-file {} verifyhost localhost alpn h2", certificate.chain.display()),
        ),
        (Links::Http2, _) => (String::new(), " proto h2".to_owned()),
        _ => (String::new(), String::new()),
    };
    // Over HTTP/2 clients alone fill the table of files; over HTTP/1.1 its own reckoning is right.
    let clients = if wiring.links == Links::Plain { "" } else { "    maxconn 19000\n    no strict-limits\n" };
    format!(
        r#"global
    nbthread {cores}
{clients}defaults
    mode http
    option http-keep-alive
    option http-no-delay
    http-reuse always
    backlog 4096
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout http-keep-alive 300s
frontend door
    bind {listen}{door}
    default_backend api
backend api
    server api {upstream}{server}
"#
    )
}

/// tidegate.toml.
pub(super) fn tidegate(wiring: &Wiring<'_>, admin: SocketAddr) -> String {
    let Wiring { listen, upstream, .. } = wiring;
    let hash = KeyHash::of(CLIENT_KEY.as_bytes());
    let tls = wiring.tls().map(|Certificate { chain, key }| {
        let (chain, key) = (chain.display(), key.display());
        format!("[tls]\ncertificate = \"{chain}\"\nkey = \"{key}\"\nca_file = \"{chain}\"\n\n")
    });
    let url = match wiring.links {
        Links::Plain => format!("url = \"http://{upstream}\""),
        Links::Http2 => format!("url = \"http://{upstream}\"\nhttp = \"2\""),
        Links::Tls => format!("url = \"https://{upstream}\"\nhttp = \"auto\""),
    };
    format!(
        r#"[listen]
address = "{listen}"
admin = "{admin}"

{}[[organisation]]
name = "bench"
{url}
keys = [{{ value = "sk-ant-bench" }}]

[[client_key]]
tenant = "bench"
hash = "{hash}"
"#,
        tls.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wiring(links: Links, certificate: Option<&Certificate>) -> Wiring<'_> {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Wiring { listen: at(4600), upstream: at(4610), links, certificate, cores: 3 }
    }

    fn certificate() -> Certificate {
        Certificate { chain: "/etc/x/cert.pem".into(), key: "/etc/x/cert.pem.key".into() }
    }

    #[test]
    fn nginx_neither_buffers_nor_logs_and_keeps_connections() {
        let text = nginx(&wiring(Links::Plain, None), Path::new("/var/x"));
        for line in [
            "daemon off;",
            "worker_processes 3;",
            "worker_rlimit_nofile 20000;",
            "worker_connections 20000;",
            "access_log off;",
            "proxy_buffering off;",
            "proxy_http_version 1.1;",
            "proxy_set_header Connection \"\";",
            "keepalive 512;",
            "keepalive_requests 1000000;",
            "listen 127.0.0.1:4600 backlog=4096;",
            "server 127.0.0.1:4610;",
            "proxy_pass http://api;",
            "pid /var/x/nginx.pid;",
        ] {
            assert!(text.lines().any(|l| l.trim() == line), "{line} in {text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        let certificate = certificate();
        let text = nginx(&wiring(Links::Tls, Some(&certificate)), Path::new("/var/x"));
        assert!(text.contains("listen 127.0.0.1:4600 ssl") && text.contains("proxy_pass https://api;"), "{text}");
        assert!(text.contains("proxy_ssl_verify on;"), "the upstream is verified, as by the others");
    }

    #[test]
    fn haproxy_speaks_http2_upstream_where_it_is_asked_for() {
        let text = haproxy(&wiring(Links::Plain, None));
        assert!(text.contains("nbthread 3\n") && text.contains("option http-no-delay\n"), "{text}");
        assert!(text.contains("bind 127.0.0.1:4600\n") && text.contains("server api 127.0.0.1:4610\n"), "{text}");
        assert!(!text.lines().any(|line| line.trim().starts_with("log") || line.contains("httplog")), "{text}");
        assert!(haproxy(&wiring(Links::Http2, None)).contains("server api 127.0.0.1:4610 proto h2\n"));
        let certificate = certificate();
        let text = haproxy(&wiring(Links::Tls, Some(&certificate)));
        assert!(text.contains("bind 127.0.0.1:4600 ssl crt") && text.contains("alpn h2"), "{text}");
    }

    #[test]
    fn tidegates_is_a_configuration_it_takes_with_a_client_key_and_all_else_at_defaults() {
        let admin = SocketAddr::from(([127, 0, 0, 1], 4601));
        let text = tidegate(&wiring(Links::Plain, None), admin);
        let config = crate::config::Config::parse(Path::new("tidegate.toml"), &text, &|_| None).unwrap();
        assert!(config.check().is_ok() && config.settings.keys.len() == 1, "{text}");
        let tables: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
        assert_eq!(tables, ["[listen]", "[[organisation]]", "[[client_key]]"]);
        let certificate = certificate();
        let text = tidegate(&wiring(Links::Tls, Some(&certificate)), admin);
        assert!(text.contains("certificate = ") && text.contains("url = \"https://127.0.0.1:4610\""), "{text}");
    }
}
