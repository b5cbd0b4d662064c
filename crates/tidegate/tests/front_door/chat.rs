//! `tidegate chat` at a gateway: a person's side of a conversation, through pipes.

use crate::process::{Folder, Tidegate, command, eventually};
use crate::wire::{Wire, bare, get, post_to};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A chat ends soon after its input does; a machine under load takes its time.
const END_MAX: Duration = Duration::from_secs(30);

/// A chat whose three ends are pipes.
struct Chat {
    child: Child,
    out: Arc<Mutex<Vec<u8>>>,
    notes: Arc<Mutex<Vec<u8>>>,
}

impl Chat {
    fn with(args: &[&str]) -> Self {
        Chat::start(command(&[&["chat"], args].concat()).env_remove("TIDEGATE_API_KEY"))
    }

    /// A chat with `tidegate`, which calls the conversation so, with the model that repeats.
    fn at(tidegate: &Tidegate, conversation: &str) -> Self {
        Chat::asking("echo", tidegate, conversation, &[])
    }

    fn asking(model: &str, tidegate: &Tidegate, conversation: &str, args: &[&str]) -> Self {
        let url = format!("http://{}", tidegate.gateway);
        Chat::with(&[&["--url", &url, "--conversation", conversation, "--model", model], args].concat())
    }

    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = collect(child.stdout.take().unwrap());
        let notes = collect(child.stderr.take().unwrap());
        Chat { child, out, notes }
    }

    fn say(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn out(&self) -> String {
        String::from_utf8(self.out.lock().unwrap().clone()).unwrap()
    }

    fn notes(&self) -> String {
        String::from_utf8(self.notes.lock().unwrap().clone()).unwrap()
    }

    /// Waits until its notes have `text` so often.
    fn notes_have(&self, text: &str, times: usize) {
        eventually(text, END_MAX, || (self.notes().matches(text).count() >= times).then_some(()));
    }

    fn interrupt(&self) {
        let kill = format!("kill -INT {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Closes its input and waits for its end: exit code, answers, notes.
    fn end(mut self) -> (i32, String, String) {
        drop(self.child.stdin.take());
        let status = eventually("the chat's end", END_MAX, || self.child.try_wait().unwrap());
        // Whoever collects has read to the end a moment after it came.
        eventually("its last words", END_MAX, || {
            (Arc::strong_count(&self.out) == 1 && Arc::strong_count(&self.notes) == 1).then_some(())
        });
        (status.code().unwrap_or(-1), self.out(), self.notes())
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("-- answers\n{}\n-- notes\n{}", self.out(), self.notes());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&all);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            into.lock().unwrap().extend_from_slice(&bytes[..n]);
        }
    });
    all
}

/// The turns of a conversation, as its door tells them.
fn turns(tidegate: &Tidegate, conversation: &str) -> Vec<Value> {
    let page = tidegate.ask(get(&format!("/v1/conversations/{conversation}/turns?limit=1000"), &[])).json();
    page["data"].as_array().unwrap_or_else(|| panic!("{page}")).clone()
}

#[test]
fn each_line_is_a_turn_and_the_command_at_the_end_goes_on_with_the_conversation() {
    let tidegate = Tidegate::simulated();
    let mut chat = Chat::asking("echo", &tidegate, "it's mine", &["--system", "Say it's \"so\"."]);
    chat.say("first words\n\nsecond \\\nin two lines\n");
    let (code, out, notes) = chat.end();
    // The model repeats what it is told: a pipe gets the answers and nothing else.
    assert_eq!((code, out.as_str()), (0, "first words\nsecond \nin two lines\n"), "{notes}");
    for want in ["it's mine (new), echo", "without a key", "turn 1 | ", "turn 2 | ", " in", " out", "first text after"]
    {
        assert!(notes.contains(want), "{want}: {notes}");
    }
    assert!(!notes.contains('\u{1b}'), "{notes:?}");
    assert_eq!(turns(&tidegate, "it%27s%20mine").len(), 2);

    let resume = notes.lines().find_map(|line| line.strip_prefix("go on with: ")).unwrap();
    let mut chat = Chat::start(Command::new("sh").args(["-c", resume]));
    chat.say("third\n/turns 2\n/window\n");
    let (code, out, notes) = chat.end();
    assert_eq!(code, 0, "{notes}");
    assert!(notes.contains("it's mine (2 turns), echo"), "{notes}");
    let lines: Vec<&str> = out.lines().collect();
    let at =
        |start: &str| lines.iter().position(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {out}"));
    // What was said before, then the new turn, then what the commands show.
    assert!(at("turn 1 | ") < at("turn 2 | ") && at("turn 2 | ") < at("third"), "{out}");
    assert!(at("third") < at("turn 3 | ") && at("turn 3 | ") < at("window: "), "{out}");
    assert!(lines.contains(&"  you    second ") && lines.contains(&"         in two lines"), "{out}");
    assert!(lines.iter().any(|line| line.contains("messages 1 to") || line.contains("message 1 ")), "{out}");
}

#[test]
fn no_order_to_the_terminal_comes_through_in_answers_notes_or_turns() {
    let tidegate = Tidegate::simulated();
    let mut chat = Chat::at(&tidegate, "orders");
    chat.say("a\u{1b}]0;owned\u{7}b\u{9b}2Jc\u{202e}d\u{8}\u{7f}\n/turns\n");
    let (code, out, notes) = chat.end();
    assert_eq!(code, 0, "{notes}");
    assert_eq!(out.lines().next(), Some("a\\u{1b}]0;owned\\u{7}b\\u{9b}2Jc\\u{202e}d\\u{8}\\u{7f}"));
    let raw = |text: &str| text.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}');
    assert!(!raw(&out) && !raw(&notes), "{out:?} {notes:?}");
    // The conversation itself has them as they were.
    assert!(turns(&tidegate, "orders")[0]["answer"].to_string().contains("\\u001b]0;owned"));

    // A name that only a gateway could say, and an error's words.
    let mut chat = Chat::asking("x\u{1b}[2J", &tidegate, "errors", &[]);
    chat.say("hello\n");
    let (code, out, notes) = chat.end();
    assert_eq!((code, out.as_str()), (2, ""), "{notes}");
    assert!(notes.contains("x\\u{1b}[2J") && notes.contains("not_found_error") && !raw(&notes), "{notes:?}");
}

#[test]
fn an_interrupt_stops_the_answer_and_the_chat_goes_on_and_twice_leaves() {
    let folder = Folder::new();
    let slow = folder.write("slow.toml", "[pace]\nevent = \"20 ms\"\noutput_tokens = \"4000\"\n");
    let tidegate = Tidegate::simulated_with("", &["--scenario", &slow]);
    let mut chat = Chat::asking("claude-haiku-4-5", &tidegate, "stopped", &[]);
    chat.say("Tell me everything.\n");
    eventually("the answer's first words", END_MAX, || (chat.out().len() > 20).then_some(()));
    chat.interrupt();
    chat.notes_have("turn 1 is kept as interrupted", 1);
    let kept = turns(&tidegate, "stopped");
    assert_eq!((kept.len(), kept[0]["status"].as_str()), (1, Some("interrupted")));
    let said = kept[0]["answer"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(said.len() >= 20 && chat.out().trim_end().starts_with(&said[..20]), "{said}");

    chat.say("/turns\nGo on.\n");
    eventually("the second answer", END_MAX, || (chat.out().matches("Tell me everything.").count() == 1).then_some(()));
    let before = chat.out().len();
    eventually("its first words", END_MAX, || (chat.out().len() > before + 20).then_some(()));
    chat.interrupt();
    chat.notes_have("turn 2 is kept as interrupted", 1);
    chat.interrupt();
    let status = eventually("the chat leaves", END_MAX, || chat.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    chat.notes_have("go on with: ", 1);
    assert_eq!(tidegate.truth("/truth")["open"], 0);
    tidegate.comes_to_rest();
}

#[test]
fn a_conversation_is_forked_and_deleted_from_within() {
    let tidegate = Tidegate::simulated();
    let mut chat = Chat::at(&tidegate, "trunk");
    chat.say("one\n/fork branch\ntwo\n/delete\nno\n");
    chat.notes_have("nothing was deleted", 1);
    chat.notes_have("now in branch, a copy with one turn; trunk stays", 1);
    assert_eq!((turns(&tidegate, "trunk").len(), turns(&tidegate, "branch").len()), (1, 2));
    chat.say("/delete\nyes\nthree\n");
    let (code, out, notes) = chat.end();
    assert_eq!((code, out.as_str()), (0, "one\ntwo\nthree\n"), "{notes}");
    assert!(notes.contains("branch is gone: 2 turns"), "{notes}");
    assert_eq!(tidegate.ask(get("/v1/conversations/branch", &[])).status, 404);
    let all = tidegate.ask(get("/v1/conversations", &[])).json();
    assert_eq!(all["data"].as_array().map(Vec::len), Some(2), "{all}");
    let new = all["data"][0]["id"].as_str().unwrap();
    assert!(notes.contains(&format!("now in {new}, which is new")), "{notes}");
}

#[test]
fn a_turn_that_came_between_is_told_and_nothing_is_doubled() {
    let tidegate = Tidegate::simulated();
    let mut chat = Chat::at(&tidegate, "shared");
    chat.say("mine\n");
    chat.notes_have("turn 1 | ", 1);
    let theirs = r#"{"messages":[{"role":"user","content":"theirs"},{"role":"assistant","content":"noted"}]}"#;
    let answer = Wire::to(tidegate.gateway).ask(post_to("/v1/conversations/shared/turns", &[], theirs));
    assert_eq!(answer.status, 200, "{}", answer.text());
    chat.say("mine again\nnever sent\n");
    let (code, out, notes) = chat.end();
    assert_eq!((code, out.as_str()), (2, "mine\n"), "{notes}");
    assert!(notes.contains("conflict_error") && notes.contains("turn_conflict") && notes.contains("/again"), "{notes}");
    assert!(notes.contains("the rest of the input was not sent"), "{notes}");
    assert_eq!(turns(&tidegate, "shared").len(), 2);
}

#[test]
fn one_command_is_enough_for_a_newcomer() {
    let mut chat = Chat::with(&["--simulate", "--once", "What is a tide?"]);
    chat.say("not read\n");
    let (code, out, notes) = chat.end();
    assert_eq!(code, 0, "{notes}");
    assert!(out.trim().len() > 20 && out.ends_with('\n'), "{out}");
    assert!(notes.contains("(new), claude-") && notes.contains("turn 1 | "), "{notes}");

    // Its name is words and a number, and a second one is another.
    let name = |notes: &str| notes.split(' ').next().unwrap().to_owned();
    let (_, _, others) = Chat::with(&["--simulate", "--once", "x"]).end();
    assert!(name(&notes).matches('-').count() == 2 && name(&notes) != name(&others), "{notes} {others}");
}

#[test]
fn what_stands_in_the_way_is_told_with_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{free}");
    let off = Tidegate::before(free, "sk-ant-x", "");
    let without = format!("http://{}", off.gateway);
    for (args, wants) in [
        (&["--url", nobody.as_str()][..], &["nobody answers", "tidegate chat --simulate"][..]),
        (&["--url", &without], &["conversations_off", "serve --conversations"]),
        (&["--url", "gate"], &["--url", "http://127.0.0.1:4600"]),
        (&["--conversation", ""], &["--conversation", "1 to 128"]),
    ] {
        let (code, out, notes) = Chat::with(args).end();
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {notes}");
        for want in wants {
            assert!(notes.contains(want), "{args:?}: {want} in {notes}");
        }
    }
}

#[test]
fn a_key_is_sent_and_named_by_its_variable_and_never_shown() {
    let made = String::from_utf8(command(&["key", "new", "--tenant", "chat"]).output().unwrap().stdout).unwrap();
    let key = made.lines().map(str::trim).find(|line| line.starts_with("tg_")).unwrap().to_owned();
    let config = &made[made.find("[[client_key]]").unwrap()..];
    let tidegate = Tidegate::simulated_with(config, &[]);
    let url = format!("http://{}", tidegate.gateway);
    let ask = |name: &str, value: &str| {
        let mut command = command(&["chat", "--url", &url, "--model", "echo", "--once", "hello"]);
        Chat::start(command.env_remove("TIDEGATE_API_KEY").env(name, value)).end()
    };
    let (code, out, notes) = ask("TIDEGATE_API_KEY", &key);
    assert_eq!((code, out.as_str()), (0, "hello\n"), "{notes}");
    assert!(notes.contains("key from TIDEGATE_API_KEY"), "{notes}");
    let (code, _, more) = ask("ANTHROPIC_API_KEY", "sk-ant-of-somebody");
    assert_eq!(code, 2, "{more}");
    assert!(more.contains("authentication_error") && more.contains("set TIDEGATE_API_KEY"), "{more}");
    for secret in [key.as_str(), "sk-ant-of-somebody"] {
        assert!(!notes.contains(secret) && !more.contains(secret) && !tidegate.output().contains(secret));
    }
    let mine = tidegate.ask(bare("GET", "/v1/conversations", &[("x-api-key", &key)])).json();
    assert_eq!(mine["data"].as_array().map(Vec::len), Some(1), "{mine}");
}
