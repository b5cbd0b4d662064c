//! `bench compare`, `storm`, `sockets` and `resume` from outside: short ones with everything in them.

use crate::process::{Folder, command, eventually};
use crate::upstream::{BEGIN, END, FINISH, Upstream, chunk, plain, stream_head};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// An answer that is no stream.
const WHOLE: &str = "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":1,\"output_tokens\":3}}";

/// They last some seconds each; a crowded machine takes longer.
const DONE_MAX: Duration = Duration::from_secs(120);

/// Exit, standard output and standard error.
fn run(args: &[&str]) -> (bool, String, String) {
    let mut child = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = eventually(args[1], DONE_MAX, || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    (status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The cells of the row that begins with `name`.
fn row<'o>(out: &'o str, name: &str) -> Vec<&'o str> {
    let line = out.lines().find(|line| line.trim_start_matches("| ").starts_with(name));
    line.unwrap_or_else(|| panic!("{name}: {out}")).split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn a_comparison_has_four_ways_parameters_and_a_chart() {
    let folder = Folder::new();
    let (svg, page) = (folder.path("c.svg"), folder.path("c.md"));
    let args = ["bench", "compare", "--concurrency", "8", "--duration", "2 s", "--svg", &svg, "--markdown", &page];
    let (good, out, err) = run(&args);
    assert!(good, "{out}{err}");
    let number = |name: &str, column: usize| row(&out, name)[column].replace(',', "").parse::<f64>().unwrap();
    for way in ["REST, a connection", "REST, keep-alive", "SSE", "WebSocket"] {
        assert!(number(way, 3) > 1.0 && number(way, 5) == 0.0 && number(way, 6) == 0.0, "{out}");
    }
    assert!(number("REST, a connection", 4) > number("REST, keep-alive", 4), "{out}");
    assert!(number("WebSocket", 4) <= 8.0 && number("WebSocket", 1) < number("WebSocket", 2), "{out}");
    assert!(out.contains("head = \"200 ms\"") && out.contains("85 answers/s"), "{out}");
    assert!(std::fs::read_to_string(&svg).unwrap().contains("</svg>"));
    assert!(std::fs::read_to_string(&page).unwrap().contains("| command | `tidegate bench compare"));
}

#[test]
fn an_endpoint_without_websockets_is_compared_without_them() {
    let upstream = Upstream::playing(|_, seen, socket| {
        std::thread::sleep(Duration::from_millis(5));
        let answer = if seen.head.starts_with("GET ") {
            plain(404, "content-type: application/json\r\n", "{}")
        } else if seen.body.windows(13).any(|w| w == b"\"stream\":true") {
            stream_head("") + &chunk(BEGIN) + &chunk(FINISH) + END
        } else {
            plain(200, "content-type: application/json\r\n", WHOLE)
        };
        drop(socket.write_all(answer.as_bytes()));
    });
    let url = format!("http://{}", upstream.at);
    let args = ["bench", "compare", &url, "--key", "sk-ant-a-1", "--concurrency", "4", "--duration", "1 s"];
    let (good, out, err) = run(&args);
    assert!(good, "{out}{err}");
    assert!(row(&out, "WebSocket")[1].starts_with("not spoken: 404"), "{out}");
    assert!(row(&out, "SSE")[3].parse::<f64>().unwrap() > 0.0 && !out.contains("The simulator answers"), "{out}");
}

#[test]
fn a_small_storm_leaves_nothing_behind() {
    let folder = Folder::new();
    let page = folder.path("storm.md");
    let args = ["bench", "storm", "--cancels", "200", "--clients", "30", "--alone", "2", "--markdown", &page];
    let (good, out, err) = run(&args);
    assert!(good, "{out}{err}");
    assert!(out.contains("verdict: passed") && !out.contains(": NO"), "{out}");
    for way in
        ["HTTP/1.1, SSE", "HTTP/1.1, JSON", "HTTP/2, SSE", "HTTP/2, JSON", "WebSocket, stream", "WebSocket, dead"]
    {
        assert!(row(&out, way)[1].parse::<u64>().unwrap() > 5, "{way}: {out}");
    }
    assert!(std::fs::read_to_string(&page).unwrap().contains("verdict: passed"));
}

#[test]
fn sockets_are_held_open_beside_some_that_stop_reading() {
    let args = ["bench", "sockets", "--clients", "30", "--stopped", "5", "--duration", "3 s", "--event-ms", "100"];
    let (_, out, err) = run(&args);
    for half in ["readers alone", "beside some"] {
        let cells = row(&out, half);
        assert_eq!((cells[1], cells[9]), ("30", "0"), "{out}{err}");
        assert!(cells[2].replace(',', "").parse::<f64>().unwrap() > 300.0, "{out}");
    }
    assert!(out.contains("too few to judge"), "{out}");
}

#[test]
fn streams_are_read_in_pieces_and_are_what_was_produced() {
    let folder = Folder::new();
    let page = folder.path("resume.md");
    let (good, out, err) = run(&["bench", "resume", "--streams", "300", "--readers", "20", "--markdown", &page]);
    assert!(good && out.contains("verdict: passed") && out.contains("- 0 wrong"), "{out}{err}");
    let count = |what: &str| -> u64 {
        let line = out.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {out}"));
        line.trim_start_matches("- ").split(' ').next().unwrap().replace(',', "").parse().unwrap()
    };
    assert!(count("streams whole") > 100 && count("broken off upstream") > 10, "{out}");
    assert!(count("taken up again") > 300, "{out}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("verdict: passed"));
}
