//! `tidegate redact` as people use it: what it writes, what it tells, and how it ends.

use super::{piped, redact};
use crate::process::{Folder, command, eventually};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

const LETTER: &str =
    "Dear Li,\ncall 138 0013 8000 or write to li.wei@example.org.\n我的身份证号：11010519491231002X\nbye\n";
const VALUES: [&str; 3] = ["138 0013 8000", "li.wei@example.org", "11010519491231002X"];

#[test]
fn what_is_found_is_replaced_and_everything_else_stays() {
    let want = LETTER.replace(VALUES[0], "[PHONE]").replace(VALUES[1], "[EMAIL]").replace(VALUES[2], "[RESIDENT_ID]");
    assert_eq!(redact(&[], LETTER), (0, want.clone(), String::new()));
    let folder = Folder::new();
    let (a, b) = (folder.write("a.txt", LETTER), folder.write("b.txt", "nothing\r\n\ttab"));
    assert_eq!(redact(&[&a, "-", &b], "x"), (0, format!("{want}xnothing\r\n\ttab"), String::new()));
    assert_eq!(redact(&[], ""), (0, String::new(), String::new()));
}

#[test]
fn a_report_tells_places_and_numbers_and_no_value() {
    let folder = Folder::new();
    let file = folder.write("letter.txt", LETTER);
    for (flag, code) in [("--report", 0), ("--check", 1)] {
        let (got, out, err) = redact(&[flag, &file, "-"], "a@example.org");
        assert_eq!((got, err.as_str()), (code, ""), "{out}");
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 5, "{out}");
        assert!(lines[0].starts_with(&format!("{file}:2:6: phone (")), "{out}");
        assert!(lines[1].starts_with(&format!("{file}:2:32: email (")), "{out}");
        assert!(lines[2].starts_with(&format!("{file}:3:8: resident_id (")), "{out}");
        assert!(lines[3].starts_with("stdin:1:1: email ("), "{out}");
        assert_eq!(lines[4], "found 4: phone 1, email 2, resident_id 1");
        assert!(VALUES.iter().all(|value| !out.contains(value)), "{out}");
    }
    assert_eq!(redact(&["--check"], "nothing here"), (0, "found nothing\n".to_owned(), String::new()));
}

#[test]
fn kinds_and_allowed_values_are_chosen_on_the_command_line() {
    let (_, out, _) = redact(&["--kinds", "email"], LETTER);
    assert!(out.contains(VALUES[0]) && !out.contains(VALUES[1]) && out.contains(VALUES[2]), "{out}");
    let (_, out, _) = redact(&["--allow", "@example.org", "--allow", "138-0013-8000"], LETTER);
    assert!(out.contains(VALUES[0]) && out.contains(VALUES[1]) && !out.contains(VALUES[2]), "{out}");
    let (_, out, _) = redact(&["--kinds", "all"], "Mr. John Smith");
    assert!(out.contains("[NAME]"), "{out}");
    let (code, _, err) = redact(&["--kinds", "fone"], LETTER);
    assert!(code == 2 && err.contains("`fone`") && err.contains("phone, email"), "{err}");
}

#[test]
fn tokens_are_the_same_for_the_same_value_and_across_runs_only_with_a_key() {
    let token = |out: &str| out.split_whitespace().next().unwrap().to_owned();
    let text = "a@example.org b@example.org a@example.org";
    let run = |args: &[&str]| redact(&[&["--style", "token"], args].concat(), text).1;
    let out = run(&[]);
    let words: Vec<&str> = out.split(' ').collect();
    assert!(words[0].starts_with("ZQM") && words[0].len() == 10, "{out}");
    assert!(words[0] == words[2] && words[0] != words[1], "{out}");
    assert_ne!(token(&run(&[])), token(&out), "another run, another key");
    let folder = Folder::new();
    let (a, b) = ("1".repeat(64), "2".repeat(64));
    let config = |scope: &str| {
        format!(
            "[redact]\nscope_key = {{ value = \"{scope}\" }}\nvault_keys = [{{ id = 1, value = \"{b}\" }}]\n[[organisation]]\nname = \"o\"\nkeys = [{{ env = \"TIDEGATE_TEST_UNSET\" }}]\n"
        )
    };
    let first = folder.write("a.toml", &config(&a));
    let other = folder.write("b.toml", &config(&b));
    assert_eq!(run(&["--config", &first]), run(&["--config", &first]));
    assert_ne!(run(&["--config", &first]), run(&["--config", &other]));
}

#[test]
fn a_configuration_gives_its_rules_and_what_it_blocks_ends_the_text() {
    let folder = Folder::new();
    let config = folder.write(
        "t.toml",
        "[redact]\nkinds = { email = \"off\", ip = \"block\" }\npolicy = \"mask\"\n[[redact.patterns]]\nname = \"order\"\nregex = 'ORD-\\d{4}'\n[[tenant]]\nname = \"default\"\nredact = { policy = \"off\", kinds = { email = \"mask\" } }\n",
    );
    let text = "ORD-1234 a@example.org 13800138000\n";
    let (code, out, err) = redact(&["--config", &config], text);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "[CUSTOM] a@example.org [PHONE]\n", ""));
    let (_, out, _) = redact(&["--config", &config, "--tenant", "default"], text);
    assert_eq!(out, "ORD-1234 [EMAIL] 13800138000\n");
    let (_, out, _) = redact(&["--config", &config, "--report"], text);
    assert!(out.contains("stdin:1:1: custom (order)"), "{out}");
    let (code, out, err) = redact(&["--config", &config], &format!("{text}from 8.8.8.8 to\n"));
    assert_eq!((code, out.as_str()), (2, "[CUSTOM] a@example.org [PHONE]\nfrom "));
    assert!(err.contains("stdin:2:6: ip (ipv4) is blocked") && !err.contains("8.8.8.8"), "{err}");
}

#[test]
fn json_is_masked_in_its_texts_and_stays_json() {
    let body = |text: &str| format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}");
    let lines = format!("{}\n\n  {}\n", body(r"\u0031\u00338 0013 8000"), body("x\\ny a@example.org"));
    let want = format!("{}\n\n  {}\n", body("[PHONE]"), body("x\\ny [EMAIL]"));
    assert_eq!(redact(&["--json"], &lines), (0, want, String::new()));
    let (_, out, _) = redact(&["--json", "--report"], &lines);
    assert!(out.contains("stdin:1:52: phone (cn_mobile)") && out.contains("stdin:3:59: email"), "{out}");
    let (_, out, _) = redact(&["--json"], "{\"phone\": 13800138000}");
    assert_eq!(out, "{\"phone\": \"[PHONE]\"}");

    let image = r#"{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBOR"}}]}]}"#;
    let (code, out, err) = redact(&["--json"], image);
    assert!(code == 2 && out.is_empty() && err.contains("stdin:1:1: 1 of its parts"), "{err}");
    let (code, out, err) = redact(&["--json", "--unscannable", "pass"], image);
    assert_eq!((code, out.as_str()), (0, image));
    assert!(err.contains("not looked into: 1"), "{err}");
    for broken in ["[1]", "{\"a\":", "{\"a\" 1}"] {
        let (code, _, err) = redact(&["--json"], &format!("{{}}\n{broken}"));
        assert!(code == 2 && err.contains("stdin:2:1:") && err.contains("JSON"), "{broken}: {err}");
    }
}

#[test]
fn what_is_no_text_is_refused_with_its_place_or_replaced() {
    let (code, out, err) = piped(&["redact"], b"fine\nbad \xff here\n");
    assert_eq!((code, out.as_slice()), (2, &b""[..]), "{err}");
    assert!(err.contains("stdin:2:5:") && err.contains("UTF-8") && err.contains("iconv"), "{err}");
    let (code, out, err) = piped(&["redact", "--lossy"], b"bad \xff 13800138000\n");
    assert_eq!((code, out.as_slice(), err.as_str()), (0, "bad \u{fffd} [PHONE]\n".as_bytes(), ""));
    let (code, _, err) = piped(&["redact", "/nowhere/x.txt"], b"");
    assert!(code == 2 && err.contains("/nowhere/x.txt: cannot be read"), "{err}");
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let mut child =
        command(&["redact"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let line = "call 13800138000 ".repeat(1_000);
        // Until nobody takes it any more.
        (0..100_000).find(|_| stdin.write_all(line.as_bytes()).is_err())
    });
    let mut some = [0; 7];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    let status = eventually("the end", Duration::from_secs(30), || child.try_wait().unwrap());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
    assert!(writer.join().unwrap().is_some());
}

#[test]
fn line_by_line_each_is_there_before_the_next_is_written() {
    let mut child =
        command(&["redact", "--line-buffered"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (said, heard) = mpsc::sync_channel(100);
    let reader = std::thread::spawn(move || {
        BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| said.send(line).unwrap_or_default());
    });
    let mut lines = Vec::new();
    for n in 0..20 {
        stdin.write_all(format!("{n} li{n}@example.org\n").as_bytes()).unwrap();
        let Ok(line) = heard.recv_timeout(Duration::from_secs(20)) else { break };
        lines.push(line);
    }
    drop(stdin);
    assert_eq!(eventually("the end", Duration::from_secs(30), || child.try_wait().unwrap()).code(), Some(0));
    reader.join().unwrap();
    assert_eq!(lines, (0..20).map(|n| format!("{n} [EMAIL]")).collect::<Vec<_>>());
}
