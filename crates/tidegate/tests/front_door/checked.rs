//! `tidegate check-upstream`: each step with its time, and what is wrong in one line.

use crate::process::{Folder, Tidegate, finished};
use crate::upstream::{BEGIN, END, FINISH, Upstream, chunk, plain, stream_head};
use std::net::TcpListener;
use std::process::{Command, Stdio};

fn checked(url: &str, more: &[&str]) -> (i32, String) {
    let (code, out, err) =
        finished(&[&["check-upstream", "--upstream", url, "--upstream-key", "sk-ant-geheim"], more].concat());
    assert!(!format!("{out}{err}").contains("geheim"), "{out}{err}");
    (code, out + &err)
}

#[test]
fn a_way_that_works_is_shown_step_by_step() {
    let tidegate = Tidegate::simulated();
    let (code, said) = checked(&format!("http://{}", tidegate.simulator()), &[]);
    assert_eq!(code, 0, "{said}");
    for part in ["name", "TCP", "answer", "200, request-id req_", "first event", "output tokens", "limits", "good"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_what_to_do() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let html = Upstream::saying(plain(502, "content-type: text/html\r\n", "<h1>Bad gateway</h1>"));
    let unauthorized = Upstream::saying(plain(
        401,
        "content-type: application/json\r\n",
        r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#,
    ));
    // It says back what it was sent, with an order to the terminal.
    let json = "content-type: application/json\r\n";
    let echo = r#"{"error":{"message":"sk-ant-geheim\u001b[2J is unknown","code":"invalid_api_key"}}"#;
    let echo = Upstream::saying(plain(200, json, echo));
    let other = Upstream::saying(plain(200, json, "{\"hello\":1}"));
    let moved = Upstream::saying(plain(301, "location: https://b.example/\r\n", ""));
    let zipped = Upstream::saying(stream_head("content-encoding: gzip\r\n") + &chunk("x"));
    let cut = Upstream::saying(stream_head("") + &chunk("event: ping\ndata: {\"type\":\"ping\"}\n\n") + "0\r\n\r\n");
    let at = |upstream: &Upstream| format!("http://{}", upstream.at);
    for (url, parts) in [
        (format!("http://{nobody}"), ["connecting to the upstream failed", "HTTPS_PROXY"]),
        ("http://no-such-host.invalid".to_owned(), ["no-such-host.invalid", "name servers"]),
        (format!("https://{}", html.at), ["the TLS handshake", "whether TLS is spoken at this port"]),
        (at(&html), ["a page for people: <h1>Bad gateway</h1>", "not the API"]),
        (at(&unauthorized), ["401: invalid x-api-key", "the key is not taken"]),
        (at(&echo), ["200: *************[2J is unknown", "the key is not taken"]),
        (at(&other), ["no stream of the API: {\"hello\":1}", "not the Messages API"]),
        (at(&moved), ["301, it sends its clients to https://b.example/", "redirects are not followed"]),
        (at(&zipped), ["compressed (gzip)", "as it comes"]),
        (at(&cut), ["ended before its message did", "text/event-stream"]),
    ] {
        let (code, said) = checked(&url, &[]);
        assert_eq!(code, 2, "{url}: {said}");
        let line = said.lines().find(|line| line.contains("BAD: ")).unwrap_or_else(|| panic!("{url}: {said}"));
        assert!(parts.iter().all(|part| line.contains(part)) && line.contains("To do: "), "{url}: {line}");
    }
}

#[test]
fn an_endpoint_is_asked_by_its_own_name_of_the_model() {
    let tidegate = Tidegate::simulated();
    let folder = Folder::new();
    let config = format!(
        "[[organisation]]\nname = \"one\"\nurl = \"http://{}\"\nkeys = [{{ value = \"sk-ant-a\" }}]\nmodels = {{ \"*\" = \"claude-nope\" }}\n",
        tidegate.simulator()
    );
    let (code, out, err) = finished(&["check-upstream", "--config", &folder.write("tidegate.toml", &config)]);
    assert!(code == 2 && out.contains("claude-nope"), "{out}{err}");
}

#[test]
fn every_key_of_the_configuration_is_tried() {
    let tidegate = Tidegate::simulated();
    let folder = Folder::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let table = |name: &str, url: String| {
        format!(
            "[[organisation]]\nname = \"{name}\"\nurl = \"{url}\"\nkeys = [{{ value = \"sk-ant-a\" }}, {{ value = \"sk-ant-b\" }}]\n"
        )
    };
    let config = table("one", format!("http://{}", tidegate.simulator())) + &table("two", format!("http://{nobody}"));
    let file = folder.write("tidegate.toml", &config);
    let (code, out, err) = finished(&["check-upstream", "--config", &file]);
    assert_eq!((code, out.matches("  good").count(), out.matches("BAD: ").count()), (2, 2, 2), "{out}{err}");
    assert!(err.contains("2 of 4 upstream keys cannot be used"), "{err}");
    let file = folder.write("good.toml", &table("one", format!("http://{}", tidegate.simulator())));
    let (code, out, err) = finished(&["check-upstream", "--config", &file]);
    assert!(code == 0 && out.ends_with("all 2 upstream keys can be used\n"), "{out}{err}");
}

#[test]
fn an_endpoints_own_header_lines_stand_in_place_of_ours() {
    let upstream = Upstream::saying(stream_head("") + &chunk(BEGIN) + &chunk(FINISH) + END);
    let folder = Folder::new();
    let config = format!(
        "[[organisation]]\nname = \"one\"\nurl = \"http://{}/base\"\nkeys = [{{ value = \"sk-ant-a\" }}]\nheaders = {{ \"anthropic-version\" = \"2099-01-01\", \"x-title\" = \"t\" }}\n",
        upstream.at
    );
    let (code, out, err) = finished(&["check-upstream", "--config", &folder.write("tidegate.toml", &config)]);
    assert!(code == 0 && out.contains("none in the headers"), "{out}{err}");
    let seen = &upstream.seen()[0];
    assert!(seen.head.starts_with("POST /base/v1/messages "), "{}", seen.head);
    assert_eq!((seen.all("anthropic-version"), seen.all("x-title")), (vec!["2099-01-01"], vec!["t"]));
}

/// The README's line that makes a certificate, run in a folder of its own: what to start a server
/// with, and what to believe. `None` where there is no openssl.
fn readmes_certificate(folder: &Folder) -> Option<(String, String)> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let from = readme.find("openssl req").unwrap();
    let line = readme[from..].split("```").next().unwrap().replace("target/", &folder.path(""));
    let made = Command::new("bash").args(["-c", &line]).stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    if made.status.code() == Some(127) {
        println!("NOT TESTED: there is no openssl on this machine");
        return None;
    }
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some((folder.path("cert.pem"), folder.path("key.pem")))
}

#[test]
fn the_readmes_certificate_is_believed_by_whoever_is_told_to() {
    let folder = Folder::new();
    let Some((cert, key)) = readmes_certificate(&folder) else { return };
    let tidegate = Tidegate::simulated_with("", &["--tls-cert", &cert, "--tls-key", &key]);
    let believing = folder.write("tidegate.toml", &format!("[tls]\nca_file = \"{cert}\"\n"));
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}", tidegate.gateway.port());
        let (code, said) = checked(&url, &["--config", &believing]);
        assert!(code == 0 && said.contains("  good"), "{said}");
        let (code, said) = checked(&url, &[]);
        assert!(code == 2 && said.contains("signed by a CA that is not known. To do: set `ca_file`"), "{said}");
    }
    let (_, said) = checked(&format!("http://{}", tidegate.gateway), &[]);
    assert!(said.contains("it speaks TLS") && said.contains("To do: write https://"), "{said}");
}
