//! The way out through a proxy: HTTP CONNECT and SOCKS5, with and without a login, to an upstream
//! whose name has no address on this side.

use crate::process::{Folder, Tidegate, command, eventually};
use crate::wire::{Answer, QUICK, message, post};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

/// No name server has it (RFC 6761).
const FAR: &str = "api.far.test";

/// A simulator with TLS behind a proxy.
struct Site {
    child: Child,
    folder: Folder,
    proxy: String,
}

impl Site {
    fn new(flags: &[&str]) -> Self {
        let folder = Folder::new();
        let names = [FAR, "refused.far.test", "silent.far.test"].map(str::to_owned);
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let (cert, key) =
            (folder.write("cert.pem", &cert.pem()), folder.write("key.pem", &signing_key.serialize_pem()));
        let free = "127.0.0.1:0";
        let common = ["simulate", "--listen", free, "--truth-listen", free, "--proxy-listen", free];
        let args = [&common[..], &["--tls-cert", &cert, "--tls-key", &key], flags].concat();
        let mut child = command(&args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut proxy = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, at)) = line.split_once("socks5h://") {
                proxy = at.to_owned();
            }
            if line == "ready" {
                break;
            }
        }
        assert!(!proxy.is_empty());
        Site { child, folder, proxy }
    }

    /// A configuration that believes the simulator's certificate.
    fn config(&self, host: &str, more: &str) -> String {
        format!(
            "[tls]\nca_file = \"{}\"\n[dial]\nproxy = \"1 s\"\n[retry]\nattempts_max = 1\n[[organisation]]\nname = \"far\"\nurl = \"https://{host}\"\nkeys = [{{ value = \"sk-ant-far\" }}]\n{more}",
            self.folder.path("cert.pem")
        )
    }

    fn asked(&self, host: &str, proxy: &str) -> Answer {
        let tidegate = Tidegate::configured(&self.config(host, proxy));
        tidegate.ask(post(&[QUICK], message(false, 50, "hello")))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failed(answer: &Answer, why: &str) {
    let text = answer.text();
    assert!((502..=504).contains(&answer.status), "{} {text}", answer.status);
    assert!(answer.status != 200 && !text.contains("geheim"), "{text}");
    assert!(why.is_empty() || text.contains(why), "{why}: {text}");
}

#[test]
fn both_kinds_of_proxy_lead_to_a_name_that_only_they_know() {
    let site = Site::new(&[]);
    for scheme in ["http", "socks5h"] {
        for http in ["1.1", "2"] {
            let proxy = format!("http = \"{http}\"\nproxy = \"{scheme}://{}\"\n", site.proxy);
            let tidegate = Tidegate::configured(&site.config(FAR, &proxy));
            for stream in [false, true] {
                let answer = tidegate.ask(post(&[QUICK], message(stream, 50, "hello")));
                assert_eq!(answer.status, 200, "{scheme} {http}: {}", answer.text());
            }
            tidegate.says(&format!("far/1 at {FAR} through {scheme}://{}", site.proxy));
        }
    }
    // Without one there is no way.
    failed(&site.asked(FAR, "proxy = \"none\"\n"), "");
}

#[test]
fn a_proxy_that_wants_a_login_gets_it_and_shows_it_to_nobody() {
    let site = Site::new(&["--proxy-login", "we:ge@heim"]);
    for scheme in ["http", "socks5h"] {
        let url = format!("{scheme}://we:ge%40heim@{}", site.proxy);
        let answer = site.asked(FAR, &format!("proxy = \"{url}\"\n"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let file = site.folder.write("proxy", &url);
        let tidegate = Tidegate::configured(&site.config(FAR, &format!("proxy = {{ file = \"{file}\" }}\n")));
        assert_eq!(tidegate.ask(post(&[QUICK], message(false, 50, "hello"))).status, 200);
        assert!(!tidegate.output().contains("heim"), "{}", tidegate.output());
        for wrong in ["", "we:wrong@"] {
            let proxy = format!("proxy = \"{scheme}://{wrong}{}\"\n", site.proxy);
            let tidegate = Tidegate::configured(&site.config(FAR, &proxy));
            failed(&tidegate.ask(post(&[QUICK], message(false, 50, "hello"))), "");
            let said = eventually("the log says why", Duration::from_secs(5), || {
                Some(tidegate.output()).filter(|text| text.contains("a user and") || text.contains("this user"))
            });
            assert!(!said.contains("wrong@"), "{said}");
        }
    }
}

#[test]
fn what_a_proxy_refuses_or_leaves_unanswered_is_said_and_ends() {
    let site = Site::new(&[]);
    for scheme in ["http", "socks5h"] {
        let proxy = format!("proxy = \"{scheme}://{}\"\n", site.proxy);
        failed(&site.asked("refused.far.test", &proxy), "");
        let tidegate = Tidegate::configured(&site.config("silent.far.test", &proxy));
        let answer = tidegate.ask(post(&[QUICK], message(false, 50, "hello")));
        assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"), "{}", answer.text());
        assert_eq!(tidegate.metric("tidegate_clock_expired_total{clock=\"proxy\"}"), 1.0);
        tidegate.comes_to_rest();
    }
    // No proxy at all is there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    failed(&site.asked(FAR, &format!("proxy = \"http://{nobody}\"\n")), "");
    // One that speaks something else.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = other.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut socket, _) = other.accept().unwrap();
            let _ = std::io::Write::write_all(&mut socket, b"220 mail.example ESMTP\r\n");
        }
    });
    for scheme in ["http", "socks5h"] {
        failed(&site.asked(FAR, &format!("proxy = \"{scheme}://{at}\"\n")), "");
    }
    peer.join().unwrap();
}

#[test]
fn the_usual_variables_are_followed_unless_the_table_says_otherwise() {
    let site = Site::new(&[]);
    let through = format!("HTTPS_PROXY=http://{}", site.proxy);
    let ask = |variables: &[&str], more: &str| {
        let tidegate = Tidegate::configured_within(variables, &site.config(FAR, more));
        tidegate.ask(post(&[QUICK], message(false, 50, "hello"))).status
    };
    assert_eq!(ask(&[&through], ""), 200);
    assert_eq!(ask(&[&format!("ALL_PROXY=socks5h://{}", site.proxy)], ""), 200);
    assert_eq!(ask(&["HTTPS_PROXY=http://127.0.0.1:1"], &format!("proxy = \"http://{}\"\n", site.proxy)), 200);
    assert_ne!(ask(&[&through, "NO_PROXY=far.test"], ""), 200);
    assert_ne!(ask(&[&through], "proxy = \"none\"\n"), 200);
    assert_ne!(ask(&[], ""), 200);
}
