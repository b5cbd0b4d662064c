//! Everything else of the API, passed on: files, batches, skills, and paths nobody here knows.

mod bodiless;
mod downloads;
mod owners;
mod uploads;

use crate::process::{Folder, Tidegate, eventually, finished};
use crate::tls::curl_is_here;
use crate::upstream::{Upstream, plain};
use crate::wire::{Answer, bare, get, message, post_to};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// A body as SDKs upload a file.
fn multipart(name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "--bd\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: text/plain\r\n\r\n"
    );
    [head.as_bytes(), content, b"\r\n--bd--\r\n"].concat()
}

/// A request with a body of this type.
fn upload_to(path: &str, content_type: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: tidegate\r\ncontent-type: {content_type}\r\nanthropic-version: 2026-10-21\r\n{lines}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn upload(name: &str, content: &[u8]) -> Vec<u8> {
    upload_to("/v1/files?beta=true", "multipart/form-data; boundary=bd", "", &multipart(name, content))
}

#[track_caller]
fn good(answer: &Answer) -> Value {
    assert!(answer.status == 200 && answer.whole, "{} {}", answer.head, answer.text());
    assert!(answer.header("request-id").is_some_and(|id| id.starts_with("req_")), "{}", answer.head);
    assert!(answer.header("tidegate-request-id").is_some(), "{}", answer.head);
    answer.json()
}

#[test]
fn a_file_is_uploaded_listed_described_downloaded_and_deleted() {
    let tidegate = Tidegate::simulated();
    // Large enough not to be held, and one that is.
    for content in ["tide ".repeat(60_000), "tide".to_owned()] {
        let file = good(&tidegate.ask(upload("output.txt", content.as_bytes())));
        let id = file["id"].as_str().unwrap();
        assert_eq!((&file["filename"], &file["size_bytes"]), (&json!("output.txt"), &json!(content.len())));
        let listed = good(&tidegate.ask(get("/v1/files?limit=1", &[])));
        assert_eq!(listed["data"][0]["id"], id);
        assert_eq!(good(&tidegate.ask(get(&format!("/v1/files/{id}"), &[]))), file);
        let answer = tidegate.ask(get(&format!("/v1/files/{id}/content"), &[]));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain")));
        assert!(answer.whole && answer.text() == content);
        let mut wire = tidegate.client();
        wire.send(bare("HEAD", &format!("/v1/files/{id}/content"), &[]));
        let head = wire.head().unwrap();
        assert_eq!((head.status, head.header("content-length")), (200, Some(content.len().to_string().as_str())));
        let gone = good(&tidegate.ask(bare("DELETE", &format!("/v1/files/{id}"), &[])));
        assert_eq!(gone["type"], "file_deleted");
        assert_eq!(tidegate.ask(get(&format!("/v1/files/{id}"), &[])).status, 404);
    }
    // The old header selects the old shape, so it has arrived.
    let old = tidegate.ask(get("/v1/files?beta=true", &[("anthropic-beta", "files-api-2025-04-14")]));
    assert_eq!(good(&old)["first_id"], Value::Null);
    assert_eq!(
        tidegate.metric("tidegate_requests_total{door=\"files\",tenant=\"default\",status=\"200\",end=\"answered\"}"),
        13.0
    );
    tidegate.comes_to_rest();
}

#[test]
fn a_batch_ends_with_results_at_an_address_of_ours() {
    let tidegate = Tidegate::simulated();
    let params: Value = serde_json::from_str(&message(false, 20, "hello")).unwrap();
    let mut params = params;
    params.as_object_mut().unwrap().remove("stream");
    let bad = json!({"model": "claude-haiku-5-5", "messages": []});
    let body = json!({"requests": [{"custom_id": "a", "params": params}, {"custom_id": "b", "params": bad}]});
    let made = good(&tidegate.ask(post_to("/v1/messages/batches", &[("simulate", "batch_ms=300")], body.to_string())));
    assert_eq!((&made["processing_status"], &made["results_url"]), (&json!("in_progress"), &Value::Null));
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/messages/batches/{id}");
    let ended = eventually("the batch", Duration::from_secs(10), || {
        Some(good(&tidegate.ask(get(&path, &[])))).filter(|batch| batch["processing_status"] == "ended")
    });
    assert_eq!(ended["results_url"], format!("http://tidegate{path}/results"), "the host that was asked");
    assert_eq!(ended["request_counts"]["succeeded"], 1);
    let listed = tidegate.ask(get("/v1/messages/batches", &[("x-forwarded-proto", "https")]));
    assert_eq!(good(&listed)["data"][0]["results_url"], format!("https://tidegate{path}/results"));
    let results = tidegate.ask(get(&format!("{path}/results"), &[("accept", "application/binary")]));
    assert_eq!((results.status, results.header("content-type")), (200, Some("application/x-jsonl")));
    let kinds: Vec<Value> =
        results.text().lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["result"]["type"].clone()).collect();
    assert_eq!(kinds, ["succeeded", "errored"]);
    assert_eq!(good(&tidegate.ask(bare("DELETE", &path, &[])))["type"], "message_batch_deleted");

    let long = tidegate.ask(post_to("/v1/messages/batches", &[("simulate", "batch_ms=60000")], body.to_string()));
    let cancel = format!("/v1/messages/batches/{}/cancel", good(&long)["id"].as_str().unwrap());
    assert_eq!(good(&tidegate.ask(bare("POST", &cancel, &[])))["processing_status"], "canceling");
    tidegate.comes_to_rest();
}

#[test]
fn our_address_can_be_told() {
    let batch = r#"{"id":"msgbatch_1","results_url":"https://h/v1/messages/batches/msgbatch_1/results"}"#;
    let upstream = Upstream::saying(plain(200, "content-type: application/json\r\n", batch));
    let config = "[pass_through]\npublic_url = \"https://claude.example.com/x/\"\n";
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", config);
    let told = tidegate.ask(get("/v1/messages/batches/msgbatch_1", &[])).json();
    assert_eq!(told["results_url"], "https://claude.example.com/x/v1/messages/batches/msgbatch_1/results");
}

#[test]
fn a_skill_and_its_versions_come_and_go() {
    let tidegate = Tidegate::simulated();
    let skill = "--bd\r\ncontent-disposition: form-data; name=\"files[]\"; filename=\"tides/SKILL.md\"\r\n\r\n---\nname: tides\ndescription: Knows the tides.\n---\nLook it up.\r\n--bd--\r\n";
    let form = "multipart/form-data; boundary=bd";
    let made = good(&tidegate.ask(upload_to("/v1/skills", form, "", skill.as_bytes())));
    let path = format!("/v1/skills/{}", made["id"].as_str().unwrap());
    let second = good(&tidegate.ask(upload_to(&format!("{path}/versions"), form, "", skill.as_bytes())));
    let versions = good(&tidegate.ask(get(&format!("{path}/versions"), &[])));
    assert_eq!((versions["data"].as_array().unwrap().len(), &versions["data"][0]), (2, &second));
    assert_eq!(tidegate.ask(bare("DELETE", &path, &[])).status, 400, "its versions go first");
    for version in versions["data"].as_array().unwrap() {
        let version = format!("{path}/versions/{}", version["id"].as_str().unwrap());
        assert_eq!(good(&tidegate.ask(bare("DELETE", &version, &[])))["type"], "skill_version_deleted");
    }
    assert_eq!(good(&tidegate.ask(bare("DELETE", &path, &[])))["type"], "skill_deleted");
    let listed = good(&tidegate.ask(get("/v1/skills?source=anthropic", &[])));
    assert_eq!(listed["data"].as_array().unwrap().len(), 4);
}

#[test]
fn a_path_nobody_knows_goes_upstream_as_it_came_under_our_key() {
    let answer = "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nrequest-id: req_up\r\nx-new: yes\r\nset-cookie: a=b\r\nalt-svc: h3=\":443\"\r\nStrict-Transport-Security: max-age=1\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\ncontent-length: 17\r\n\r\n{\"id\":\"agent_01\"}";
    let upstream = Upstream::saying(answer);
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
    let lines = "x-api-key: sk-mine\r\nanthropic-beta: one,two\r\nx-stainless-lang: python\r\ntidegate-priority: background\r\nconnection: x-drop\r\nx-drop: 1\r\ncookie: c=d\r\ncontent-encoding: zstd\r\n";
    let told = tidegate.ask(upload_to("/v1/agents/new?beta=true&x=%20", "application/json", lines, b"not even json"));
    assert_eq!((told.status, told.text().as_str()), (201, "{\"id\":\"agent_01\"}"));
    assert_eq!((told.header("request-id"), told.header("x-new")), (Some("req_up"), Some("yes")));
    for dropped in ["set-cookie", "alt-svc", "strict-transport-security", "x-hop", "keep-alive"] {
        assert_eq!(told.header(dropped), None, "{}", told.head);
    }
    assert!(!told.head.contains("sk-ant"), "{}", told.head);
    let seen = &upstream.seen()[0];
    assert!(seen.head.starts_with("POST /v1/agents/new?beta=true&x=%20 HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.body, b"not even json");
    for (name, want) in [
        ("x-api-key", &["sk-ant-key"][..]),
        ("anthropic-beta", &["one,two"]),
        ("x-stainless-lang", &["python"]),
        ("content-encoding", &["zstd"]),
        ("accept-encoding", &["identity"]),
        ("tidegate-priority", &[]),
        ("x-drop", &[]),
        ("cookie", &[]),
    ] {
        assert_eq!(seen.all(name), want, "{name}: {}", seen.head);
    }
    let record = tidegate.says("door=\"other\"");
    assert!(record.contains("status=201") && record.contains("req_up"), "{record}");
    tidegate.comes_to_rest();
}

#[test]
fn strangers_bad_paths_and_what_means_nothing_here_do_not_get_through() {
    let upstream = Upstream::saying(plain(200, "content-type: application/json\r\n", "{}"));
    let (_, made, _) = finished(&["key", "new", "--tenant", "team"]);
    let config = &made[made.find("[[client_key]]").unwrap()..];
    let secret = made.split_whitespace().find(|word| word.starts_with("tg_")).unwrap();
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", config);
    let key = ("x-api-key", secret);
    for (path, lines, status, code) in [
        ("/v1/files", &[("x-api-key", "tg_other")][..], 401, "unknown_key"),
        ("/v1/files", &[], 401, "missing_key"),
        ("/v1/files/..", &[key], 404, "unknown_path"),
        ("/v1/files/%2e%2e/organizations", &[key], 404, "unknown_path"),
        ("/v1/files//x", &[key], 404, "unknown_path"),
        ("/v1/organizations/me", &[key], 404, "unknown_path"),
        ("/v1/models/a/b", &[key], 404, "unknown_path"),
        ("/v2/files", &[key], 404, "unknown_path"),
        ("/v1/files", &[key, ("tidegate-resume", "memory")], 400, "invalid_header"),
        ("/v1/files", &[key, ("tidegate-conversation", "c")], 400, "invalid_header"),
    ] {
        let answer = tidegate.ask(get(path, lines));
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path} {lines:?}");
    }
    assert_eq!(tidegate.ask(bare("TRACE", "/v1/files", &[key])).status, 405);
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    assert_eq!(tidegate.ask(get("/v1/files", &[key])).status, 200);
}

#[test]
fn where_data_is_masked_a_body_that_cannot_be_looked_into_stays_here() {
    for (policy, unscannable, passes) in
        [("mask", "block", false), ("block", "block", false), ("mask", "pass", true), ("report", "block", true)]
    {
        let upstream = Upstream::saying(plain(200, "content-type: application/json\r\n", "{}"));
        let config = format!("[redact]\npolicy = \"{policy}\"\nunscannable = \"{unscannable}\"\n");
        let tidegate = Tidegate::before(upstream.at, "sk-ant-key", &config);
        let answer = tidegate.ask(upload("letter.txt", b"call +1 415 555 0132"));
        if passes {
            assert_eq!(answer.status, 200, "{policy} {unscannable}");
        } else {
            assert_eq!((answer.status, answer.code().as_str()), (400, "unscannable"), "{policy} {unscannable}");
        }
        assert_eq!(upstream.seen().len(), usize::from(passes), "{policy} {unscannable}");
        // What has no body says nothing.
        assert_eq!(tidegate.ask(get("/v1/files", &[])).status, 200);
        assert_eq!(tidegate.ask(bare("POST", "/v1/messages/batches/msgbatch_1/cancel", &[])).status, 200);
    }
}

#[test]
fn what_was_not_done_is_asked_for_again_and_what_may_have_been_is_not() {
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}"#;
    let fails = [
        ("529", plain(529, "content-type: application/json\r\n", overloaded)),
        ("500", plain(500, "content-type: application/json\r\n", &overloaded.replace("overloaded", "api"))),
        ("no answer", String::new()),
    ];
    for (what, failing) in fails {
        for (method, repeats) in [("GET", true), ("DELETE", true), ("POST", what == "529")] {
            let failing = failing.clone();
            let upstream = Upstream::playing(move |nth, _, socket| {
                let good = plain(200, "content-type: application/json\r\n", "{\"id\":\"x_1\"}");
                let said = if nth == 0 { failing.clone() } else { good };
                drop(std::io::Write::write_all(socket, said.as_bytes()));
                if said.is_empty() {
                    drop(socket.shutdown(std::net::Shutdown::Both));
                }
            });
            let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
            let answer = tidegate.ask(match method {
                "POST" => String::from_utf8(post_to("/v1/skills", &[], "{}")).unwrap(),
                method => bare(method, "/v1/skills/skill_1", &[]),
            });
            let seen = upstream.seen().len();
            assert_eq!((answer.status == 200, seen), (repeats, 1 + usize::from(repeats)), "{what} {method}");
            tidegate.comes_to_rest();
        }
    }
}

#[test]
fn both_sides_may_speak_http2() {
    if !curl_is_here() {
        return;
    }
    let simulator = Tidegate::simulated();
    let tidegate = Tidegate::configured(&format!(
        "[[organisation]]\nname = \"a\"\nurl = \"http://{}\"\nhttp = \"2\"\nkeys = [{{ value = \"sk-ant-a-1\" }}]\n",
        simulator.simulator()
    ));
    let folder = Folder::new();
    let content = "tide ".repeat(400_000);
    let (file, back) = (folder.write("output.txt", &content), folder.path("back.txt"));
    let curl = |args: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "30", "--noproxy", "*"]);
        curl.args(["--http2-prior-knowledge", "--header", "anthropic-version: 2026-10-21"]).args(args);
        let out = curl.output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let files = format!("http://{}/v1/files", tidegate.gateway);
    let made: Value = serde_json::from_str(&curl(&["--form", &format!("file=@{file}"), &files])).unwrap();
    assert_eq!(made["size_bytes"], content.len());
    curl(&["--output", &back, &format!("{files}/{}/content", made["id"].as_str().unwrap())]);
    assert!(std::fs::read_to_string(&back).unwrap() == content);
    assert!(
        tidegate.metric("tidegate_requests_total{door=\"files\",tenant=\"default\",status=\"200\",end=\"answered\"}")
            == 2.0
    );
    tidegate.comes_to_rest();
}
