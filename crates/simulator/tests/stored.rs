//! What the simulated API keeps: files, skills, batches; each workspace's own.
#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

mod reader;

use reader::{KEY, at, play, simulator};
use serde_json::{Value, json};
use tidegate_simulator::{RequestFacts, Simulator};

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=b");

struct Api(Simulator);

impl Api {
    fn new() -> Self {
        Api(simulator(1))
    }

    /// A request at `ms`, with a key and further lines.
    fn at(
        &mut self,
        ms: u64,
        key: &str,
        method: &str,
        target: &str,
        lines: &[(&str, &str)],
        body: &str,
    ) -> reader::Answer {
        let headers = [&[("x-api-key", key), ("anthropic-version", "2026-10-21")], lines].concat();
        let exchange = self.0.begin(at(ms), &RequestFacts { method, target, headers: &headers, body: body.as_bytes() });
        play(&mut self.0, at(ms), exchange)
    }

    fn ask(&mut self, method: &str, target: &str) -> reader::Answer {
        self.at(0, KEY, method, target, &[], "")
    }

    fn upload(&mut self, ms: u64, name: &str, extra: &str) -> reader::Answer {
        let body = format!(
            "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\ncontent-type: text/csv\r\n\r\na,b\r\n--b{extra}--\r\n"
        );
        self.at(ms, KEY, "POST", "/v1/files", &[FORM], &body)
    }

    fn batch(&mut self, requests: &Value) -> reader::Answer {
        let body = json!({"requests": requests}).to_string();
        self.at(0, KEY, "POST", "/v1/messages/batches", &[("simulate", "batch_ms=5000")], &body)
    }
}

fn hello() -> Value {
    json!({"model": "claude-haiku-4-5", "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}]})
}

#[test]
fn files_are_kept_for_their_workspace_until_they_expire() {
    let mut api = Api::new();
    let ids: Vec<String> =
        (0..3).map(|_| api.upload(0, "output.csv", "").json()["id"].as_str().unwrap().to_owned()).collect();
    let first = api.ask("GET", "/v1/files?limit=2").json();
    assert_eq!((&first["data"][0]["id"], &first["data"][1]["id"]), (&json!(ids[2]), &json!(ids[1])), "newest first");
    let next = api.ask("GET", &format!("/v1/files?limit=2&page={}", first["next_page"].as_str().unwrap())).json();
    assert_eq!((&next["data"][0]["id"], &next["next_page"]), (&json!(ids[0]), &Value::Null));
    assert_eq!(
        api.ask("GET", &format!("/v1/files?ids[]={}&ids[]=nope", ids[1])).json()["data"].as_array().unwrap().len(),
        1
    );
    let content = api.ask("GET", &format!("/v1/files/{}/content", ids[0]));
    assert_eq!((content.header("content-type"), content.text()), (Some("text/csv"), "a,b"));
    let other = api.at(0, "sk-ant-other-1", "GET", &format!("/v1/files/{}", ids[0]), &[], "");
    assert_eq!(other.status, 404, "another organisation's");

    let input = api.upload(0, "input.csv", "").json()["id"].as_str().unwrap().to_owned();
    let refused = api.ask("GET", &format!("/v1/files/{input}/content")).json();
    assert_eq!(refused["error"]["details"]["error_code"], "file_not_downloadable");
    let extra = "\r\ncontent-disposition: form-data; name=\"expires_in_seconds\"\r\n\r\n3600\r\n--b";
    let short = api.upload(0, "short.csv", extra).json();
    assert_eq!(short["expires_at"].as_str().unwrap().len(), 20);
    let path = format!("/v1/files/{}", short["id"].as_str().unwrap());
    assert_eq!(api.at(3_599_000, KEY, "GET", &path, &[], "").status, 200);
    assert_eq!(api.at(3_600_000, KEY, "GET", &path, &[], "").json()["error"]["details"]["error_code"], "file_expired");
    assert_eq!(api.upload(0, "a/b", "").status, 400);
    assert_eq!(api.ask("DELETE", &format!("/v1/files/{input}")).json()["type"], "file_deleted");
    assert_eq!(api.ask("DELETE", &format!("/v1/files/{input}")).status, 404);
    assert_eq!(api.ask("PUT", "/v1/files").status, 405);
}

#[test]
fn a_batch_ends_after_its_time_with_a_line_for_each_request() {
    let mut api = Api::new();
    let bad = json!({"model": "claude-haiku-4-5", "max_tokens": 20});
    let batch = api.batch(&json!([{"custom_id": "a", "params": hello()}, {"custom_id": "b", "params": bad}])).json();
    assert_eq!(
        (&batch["processing_status"], &batch["request_counts"]["processing"]),
        (&json!("in_progress"), &json!(2))
    );
    let path = format!("/v1/messages/batches/{}", batch["id"].as_str().unwrap());
    let results = format!("{path}/results");
    assert_eq!(api.at(4_999, KEY, "GET", &results, &[], "").status, 404);
    assert_eq!(api.at(4_999, KEY, "DELETE", &path, &[], "").status, 400);
    let ended = api.at(5_000, KEY, "GET", &path, &[("host", "api:1")], "").json();
    assert_eq!(
        (&ended["processing_status"], &ended["results_url"]),
        (&json!("ended"), &json!(format!("http://api:1{results}")))
    );
    let counts = &ended["request_counts"];
    assert_eq!(
        [&counts["processing"], &counts["succeeded"], &counts["errored"]],
        [0, 1, 1].map(|n| json!(n)).each_ref()
    );
    let lines = api.at(5_000, KEY, "GET", &results, &[], "");
    let lines: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["result"]["message"]["usage"]["service_tier"], "batch");
    assert_eq!(lines[1]["result"]["error"]["error"]["type"], "invalid_request_error");
    assert_eq!(api.at(5_000, KEY, "DELETE", &path, &[], "").json()["type"], "message_batch_deleted");
}

#[test]
fn a_batch_that_is_cancelled_ends_without_answers() {
    let mut api = Api::new();
    let id = api.batch(&json!([{"custom_id": "a", "params": hello()}])).json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/messages/batches/{id}");
    assert_eq!(api.ask("POST", &format!("{path}/cancel")).json()["processing_status"], "canceling");
    let ended = api.at(1_000, KEY, "GET", &path, &[], "").json();
    assert_eq!((&ended["processing_status"], &ended["request_counts"]["canceled"]), (&json!("ended"), &json!(1)));
    assert!(api.at(1_000, KEY, "GET", &format!("{path}/results"), &[], "").text().contains("\"canceled\""));
    let listed = api.at(1_000, KEY, "GET", "/v1/messages/batches", &[], "").json();
    assert_eq!((&listed["first_id"], &listed["has_more"]), (&json!(id), &json!(false)));
}

#[test]
fn a_batch_that_says_nothing_sensible_is_refused_whole() {
    let mut api = Api::new();
    let one = |id: &str| json!({"custom_id": id, "params": hello()});
    for bad in [
        json!([]),
        json!({}),
        json!([one("")]),
        json!([one("a b")]),
        json!([one("a"), one("a")]),
        json!([{"custom_id": "a"}]),
    ] {
        let (status, kind, _) = api.batch(&bad).error();
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{bad}");
    }
}

#[test]
fn two_skills_have_two_names() {
    let mut api = Api::new();
    let skill = "--b\r\ncontent-disposition: form-data; name=\"files[]\"; filename=\"t/SKILL.md\"\r\n\r\n---\nname: t\ndescription: d\n---\n\r\n--b--\r\n";
    let made = api.at(0, KEY, "POST", "/v1/skills", &[FORM], skill).json();
    assert_eq!((&made["display_name"], &made["source"]["type"]), (&json!("t"), &json!("custom")));
    let again = api.at(0, KEY, "POST", "/v1/skills", &[FORM], skill);
    assert_eq!((again.status, &again.json()["error"]["details"]["error_code"]), (409, &json!("skill_name_taken")));
    let beta =
        api.at(0, KEY, "GET", "/v1/skills?source=custom", &[("anthropic-beta", "x,skills-2025-10-02")], "").json();
    assert_eq!((&beta["data"][0]["display_title"], &beta["data"][0]["source"]), (&json!("t"), &json!("custom")));
    assert_eq!(api.ask("GET", "/v1/skills/pptx").json()["source"]["type"], "anthropic");
    let without = skill.replace("SKILL.md", "other.md");
    assert_eq!(api.at(0, KEY, "POST", "/v1/skills", &[FORM], &without).status, 400);
}
