//! TLS and HTTP/2 towards clients, with a client of another make: curl, in a process of its own.
//!
//! Without a curl that speaks HTTP/2 the tests that need it say so and pass; CI has one.

use crate::process::{Folder, Tidegate, eventually, finished};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);

/// A certificate for this machine's address: the paths of chain and key.
fn certificate(folder: &Folder) -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    (folder.write("cert.pem", &cert.pem()), folder.write("key.pem", &signing_key.serialize_pem()))
}

fn secured(folder: &Folder, config: &str) -> (Tidegate, String) {
    let (cert, key) = certificate(folder);
    (Tidegate::simulated_with(config, &["--tls-cert", &cert, "--tls-key", &key]), cert)
}

/// Whether there is a curl with HTTP/2 here.
pub(crate) fn curl_is_here() -> bool {
    let version = Command::new("curl").arg("--version").output();
    let here = version.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).contains("HTTP2"));
    if !here {
        println!("NOT TESTED: there is no curl with HTTP/2 on this machine");
    }
    here
}

fn curl(flags: &[&str], url: &str, simulate: &str, body: &str) -> Child {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "30", "--no-buffer", "--noproxy", "*"]).args(flags);
    curl.args(["--header", "content-type: application/json", "--header", "x-api-key: any"]);
    curl.args(["--header", "anthropic-version: 2023-06-01", "--header", &format!("simulate: {simulate}")]);
    curl.args(["--write-out", "\nversion %{http_version} status %{http_code}", "--data", body, url]);
    curl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What curl printed, and its exit code.
fn answered(child: Child) -> (String, i32) {
    let out = child.wait_with_output().unwrap();
    (String::from_utf8_lossy(&out.stdout).into_owned(), out.status.code().unwrap_or(-1))
}

fn message(stream: bool) -> String {
    format!(
        "{{\"model\":\"echo\",\"max_tokens\":500,\"stream\":{stream},\"messages\":[{{\"role\":\"user\",\"content\":\"Hello over there\"}}]}}"
    )
}

const AT_ONCE: &str = "head_ms=0, first_ms=0, event_ms=0";

/// One stream and one buffered answer with these flags, in the version of HTTP they ask for.
fn both(tidegate: &Tidegate, scheme: &str, flags: &[&str], version: &str) {
    let url = format!("{scheme}://{}/v1/messages", tidegate.gateway);
    let (text, code) = answered(curl(flags, &url, AT_ONCE, &message(true)));
    assert_eq!(code, 0, "{flags:?}: {text}");
    assert!(text.contains("event: message_start") && text.contains("event: message_stop"), "{flags:?}: {text}");
    assert!(text.ends_with(&format!("version {version} status 200")), "{flags:?}: {text}");
    let (text, code) = answered(curl(flags, &url, AT_ONCE, &message(false)));
    assert_eq!(code, 0, "{flags:?}: {text}");
    assert!(text.contains("\"stop_reason\":\"end_turn\"") && text.contains("Hello over there"), "{flags:?}: {text}");
    assert!(text.ends_with(&format!("version {version} status 200")), "{flags:?}: {text}");
}

#[test]
fn curl_is_served_over_tls_in_either_version_of_http() {
    if !curl_is_here() {
        return;
    }
    let folder = Folder::new();
    let (tidegate, cert) = secured(&folder, "");
    assert!(tidegate.output().contains(&format!("gateway    https://{}", tidegate.gateway)), "{}", tidegate.output());
    both(&tidegate, "https", &["--http1.1", "--cacert", &cert], "1.1");
    both(&tidegate, "https", &["--http2", "--cacert", &cert], "2");
    both(&tidegate, "https", &["--http2", "--tls-max", "1.2", "--cacert", &cert], "2");
    // A refusal has its status and its envelope, and a body that is not read holds nobody up.
    let url = format!("https://{}/nowhere", tidegate.gateway);
    let (text, code) = answered(curl(&["--http2", "--cacert", &cert], &url, AT_ONCE, &message(true)));
    assert!(code == 0 && text.contains("unknown_path") && text.ends_with("version 2 status 404"), "{code} {text}");
    tidegate.comes_to_rest();
}

#[test]
fn curl_is_served_in_cleartext_by_prior_knowledge() {
    if !curl_is_here() {
        return;
    }
    let tidegate = Tidegate::simulated();
    both(&tidegate, "http", &["--http1.1"], "1.1");
    both(&tidegate, "http", &["--http2-prior-knowledge"], "2");
    tidegate.comes_to_rest();
}

#[test]
fn an_upstream_that_breaks_off_and_a_client_that_leaves_are_told_in_http2_too() {
    if !curl_is_here() {
        return;
    }
    let folder = Folder::new();
    let (tidegate, cert) = secured(&folder, "");
    let url = format!("https://{}/v1/messages", tidegate.gateway);
    let flags = ["--http2", "--cacert", &cert];
    let broken = format!("{AT_ONCE}, fault=reset-at:event-4");
    let (text, code) = answered(curl(&flags, &url, &broken, &message(true)));
    assert!(code == 0 && text.contains("event: error") && text.contains("upstream_broken"), "{code} {text}");

    let before = tidegate.truth("/truth");
    let slow = "output_tokens=2000, head_ms=0, first_ms=0, event_ms=50";
    let model = message(true).replace("echo", "claude-haiku-4-5");
    let mut leaver = curl(&flags, &url, slow, &model);
    let mut seen = [0; 512];
    assert!(leaver.stdout.as_mut().unwrap().read(&mut seen).unwrap() > 0);
    leaver.kill().unwrap();
    leaver.wait().unwrap();
    eventually("the upstream is let go", SOON, || {
        let truth = tidegate.truth("/truth");
        (truth["open"] == before["open"] && truth["clients_left"].as_u64() > before["clients_left"].as_u64())
            .then_some(())
    });
    tidegate.comes_to_rest();
}

#[test]
fn a_silent_handshake_runs_into_its_clock_and_garbage_closes_quietly() {
    let folder = Folder::new();
    let (tidegate, _) = secured(&folder, "[clocks]\nclient_tls = \"300 ms\"\n");
    let closes = |sent: &[u8]| {
        let mut socket = TcpStream::connect(tidegate.gateway).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.write_all(sent).unwrap();
        let began = Instant::now();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        (began.elapsed(), rest)
    };
    let (after, said) = closes(b"");
    assert!(said.is_empty() && after >= Duration::from_millis(250) && after < SOON, "{after:?} {said:?}");
    // The beginning of a ClientHello, and no more.
    let (after, said) = closes(&[0x16, 3, 1, 2, 0, 1]);
    assert!(said.is_empty() && after >= Duration::from_millis(250) && after < SOON, "{after:?} {said:?}");
    // The connection is closed first and counted after that.
    let expired = || tidegate.metric("tidegate_clock_expired_total{clock=\"client_tls\"}");
    eventually("both clocks are counted", SOON, || (expired() == 2.0).then_some(()));
    let (after, said) = closes(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    // At most an alert of TLS.
    assert!(after < SOON && said.len() <= 7, "{after:?} {said:?}");
    tidegate.comes_to_rest();
    assert_eq!((expired(), tidegate.metric("tidegate_client_tls_failed_total")), (2.0, 3.0));
    assert!(!tidegate.output().contains("WARN") && !tidegate.output().contains("ERROR"), "{}", tidegate.output());
}

#[test]
fn a_drain_ends_idle_connections_of_http2_and_lets_streams_end() {
    if !curl_is_here() {
        return;
    }
    let folder = Folder::new();
    let (mut tidegate, cert) = secured(&folder, "");
    let url = format!("https://{}/v1/messages", tidegate.gateway);
    let slow = "output_tokens=20, chars=4, head_ms=0, first_ms=0, event_ms=60";
    let model = message(true).replace("echo", "claude-haiku-4-5");
    let mut asked = curl(&["--http2", "--cacert", &cert], &url, slow, &model);
    let mut first = [0; 64];
    asked.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    tidegate.signal("TERM");
    let (text, code) = answered(asked);
    assert!(code == 0 && text.contains("event: message_stop"), "{code} {text}");
    assert_eq!(tidegate.exit(Duration::from_secs(10)), Some(0));
}

#[test]
fn files_of_tls_that_cannot_be_used_are_refused_before_anything_listens() {
    let folder = Folder::new();
    let (cert, key) = certificate(&folder);
    let other = certificate(&Folder::new());
    drop(other);
    let mismatched = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().signing_key.serialize_pem();
    let mismatched = folder.write("other.pem", &mismatched);
    let config = |cert: &str, key: &str| {
        let tls = format!("[tls]\ncertificate = \"{cert}\"\nkey = \"{key}\"\n");
        let organisation = "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\n";
        folder.write("tidegate.toml", &format!("{tls}{organisation}"))
    };
    let (code, said, _) = finished(&["check-config", &config(&cert, &key)]);
    assert!(code == 0 && said.contains("with TLS"), "{said}");
    for (cert, key, why) in [
        (cert.as_str(), mismatched.as_str(), "is not the key of the first certificate"),
        ("/nowhere.pem", &key, "certificate file /nowhere.pem: cannot be read"),
        (&key, &key, "holds no certificate"),
    ] {
        let (code, _, said) = finished(&["check-config", &config(cert, key)]);
        assert!(code != 0 && said.contains(why), "{said}");
        let (code, _, said) = finished(&[
            "simulate",
            "--listen",
            "127.0.0.1:0",
            "--truth-listen",
            "127.0.0.1:0",
            "--tls-cert",
            cert,
            "--tls-key",
            key,
        ]);
        assert!(code != 0 && said.contains(why), "{said}");
    }
    let (code, _, said) = finished(&["serve", "--simulate", "--tls-cert", &cert]);
    assert!(code != 0 && said.contains("--tls-key"), "{said}");
}
