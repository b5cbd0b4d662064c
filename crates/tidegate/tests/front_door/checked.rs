//! `tidegate check-upstream`: each step with its time, and what is wrong in one line.

use crate::process::{Folder, Tidegate, finished};
use crate::upstream::{Upstream, chunk, plain, stream_head};
use std::net::TcpListener;

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
    let cut = Upstream::saying(stream_head("") + &chunk("event: ping\ndata: {\"type\":\"ping\"}\n\n") + "0\r\n\r\n");
    let at = |upstream: &Upstream| format!("http://{}", upstream.at);
    for (url, parts) in [
        (format!("http://{nobody}"), ["connecting to the upstream failed", "HTTPS_PROXY"]),
        ("http://no-such-host.invalid".to_owned(), ["no-such-host.invalid", "name servers"]),
        (format!("https://{}", html.at), ["TLS", "ca_file"]),
        (at(&html), ["a page for people: <h1>Bad gateway</h1>", "not the API"]),
        (at(&unauthorized), ["401: invalid x-api-key", "the key is not taken"]),
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
}
