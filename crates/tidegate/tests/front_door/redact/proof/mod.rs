//! Nothing personal leaves: prompts with values of every kind, through every door, with an upstream
//! that says them back garbled, and a wire to it that keeps everything.
//!
//! Checked of each answer: it is what the client said, every token restored. Checked of what went up:
//! no value that a rule finds. Checked of streams in which no token stands: their events are the
//! upstream's own, one by one, so nothing was held. Checked at the end of everything that Tidegate
//! wrote: log, conversations with their write-ahead log, what the operators' door tells.
//!
//! A slice runs with all other tests; more, from other dice, by
//! `TIDEGATE_REDACT_PROMPTS=2000 TIDEGATE_REDACT_SEED=7 cargo test -p tidegate --test front_door -- --nocapture redact::proof`.

mod corpus;
mod doors;
mod tap;

use crate::process::{Folder, Tidegate, eventually};
use corpus::{Corpus, Prompt, bare, tokens_in};
use std::time::Duration;
use tap::Tap;
use tidegate_redact::detect::Scratch;
use tidegate_redact::mask::{Filter, Scopes};
use tidegate_redact::rules::{Policy, Rules};
use tidegate_redact::vault::{ScopeKey, Vault};

/// Prompts of the slice: each door has a few.
const PROMPTS: u64 = 60;

const SCENARIO: &str = "about = \"Says back.\"\n[pace]\nhead = \"0 ms\"\nfirst = \"0 ms\"\nevent = \"0 ms\"\nchars = \"1-9\"\nthinking_tokens = \"4000\"\n[quota]\ntier = \"unlimited\"\n";

/// What was counted.
#[derive(Debug, Default)]
struct Score {
    answers: u64,
    /// Answers in which a token was left.
    leaked: u64,
    /// Answers that are not what was said.
    wrong: u64,
    /// Streams without a token, and events of them that were not the upstream's.
    plain: u64,
    delayed: u64,
    first: Option<String>,
}

impl Score {
    /// An answer, and what it has to be.
    fn answer(&mut self, door: &str, got: &str, want: &str) {
        self.answers += 1;
        if bare(got) == bare(want) {
            return;
        }
        let leaked = tokens_in(got) > 0;
        *if leaked { &mut self.leaked } else { &mut self.wrong } += 1;
        self.first.get_or_insert_with(|| format!("{door}:\n got {got:?}\nwant {want:?}"));
    }
}

/// A gateway with a log, the wire behind it, and the simulator behind that.
struct Site {
    folder: Folder,
    _simulated: Tidegate,
    tap: Tap,
    tidegate: Option<Tidegate>,
    corpus: Corpus,
    score: Score,
    /// What earlier gateways wrote and told.
    written: Vec<u8>,
    /// Values that were seen going up.
    plaintext: u64,
    requests: u64,
}

impl Site {
    fn new(seed: u64) -> Site {
        let folder = Folder::new();
        let scenario = folder.write("echo.toml", SCENARIO);
        let simulated = Tidegate::simulated_with("", &["--scenario", &scenario]);
        let tap = Tap::before(simulated.simulator());
        let (corpus, score) = (Corpus::new(seed), Score::default());
        let mut site = Site {
            folder,
            _simulated: simulated,
            tap,
            tidegate: None,
            corpus,
            score,
            written: Vec::new(),
            plaintext: 0,
            requests: 0,
        };
        site.start();
        site
    }

    fn start(&mut self) {
        let config = format!(
            "[redact]\npolicy = \"mask\"\nscope_key = {{ value = \"{}\" }}\nvault_keys = [{{ id = 1, value = \"{}\" }}]\n[conversations]\nfile = \"{}\"\n[log]\nlevel = \"debug\"\n[sockets]\nmodel = \"echo-mangled\"\nmax_tokens = 8000\n",
            "5a".repeat(32),
            "a5".repeat(32),
            self.folder.path("c.db")
        );
        self.tidegate = Some(Tidegate::before(self.tap.at, "sk-ant-simulated", &config));
    }

    fn tidegate(&self) -> &Tidegate {
        self.tidegate.as_ref().unwrap()
    }

    fn prompt(&mut self) -> Prompt {
        let sentences = self.corpus.dice().between(1, 8) as usize;
        self.corpus.prompt(sentences)
    }

    /// What went up since this was last asked.
    fn look_up(&mut self) {
        for up in self.tap.up() {
            self.plaintext += self.corpus.count_in(&up);
            self.requests += up.windows(9).filter(|w| *w == b" HTTP/1.1").count() as u64;
        }
        self.tap.forget();
    }

    /// Ends the gateway as an operator does, and keeps what it said.
    fn stop(&mut self) {
        let mut tidegate = self.tidegate.take().unwrap();
        // What streams have kept for readers who come back stays for minutes.
        eventually("nothing is under way", Duration::from_secs(10), || {
            (tidegate.metric("tidegate_streams_open") == 0.0).then_some(())
        });
        for page in ["/metrics", "/streams", "/snapshot", "/domains"] {
            self.written.extend_from_slice(&tidegate.admin(page).body);
        }
        // The files too while they are open: the write-ahead log is gone afterwards.
        self.read_files();
        tidegate.signal("TERM");
        assert_eq!(tidegate.exit(Duration::from_secs(20)), Some(0), "{}", tidegate.output());
        self.written.extend_from_slice(tidegate.output().as_bytes());
        self.read_files();
    }

    fn read_files(&mut self) {
        for file in ["c.db", "c.db-wal", "c.db-shm"] {
            if let Ok(bytes) = std::fs::read(self.folder.path(file)) {
                self.written.extend_from_slice(&bytes);
            }
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn nothing_personal_leaves_by_any_door_and_nothing_of_it_is_written() {
    let (prompts, seed) = (number("TIDEGATE_REDACT_PROMPTS", PROMPTS), number("TIDEGATE_REDACT_SEED", 1));
    let mut site = Site::new(seed);
    let mut streams = Vec::new();
    for nth in 0..prompts {
        doors::walk(&mut site, nth, &mut streams);
        if nth % 50 == 49 {
            site.look_up();
        }
    }
    site.stop();
    site.start();
    doors::after_a_restart(&mut site, &streams);
    site.stop();
    site.look_up();
    let written = site.corpus.count_in(&site.written);
    let Site { corpus, score, plaintext, requests, .. } = &site;
    println!(
        "| prompts | values written | of them found by no rule | requests upstream | answers compared | plain streams |"
    );
    println!(
        "| {prompts} | {} | {} | {requests} | {} | {} |",
        corpus.written, corpus.missed, score.answers, score.plain
    );
    println!(
        "| found values upstream | wrong answers | tokens left | events held | found values in {} MB written |",
        site.written.len() / 1_000_000
    );
    println!("| {plaintext} | {} | {} | {} | {written} |", score.wrong, score.leaked, score.delayed);
    assert_eq!((score.wrong, score.leaked, score.delayed), (0, 0, 0), "{}", score.first.as_deref().unwrap_or_default());
    assert_eq!((*plaintext, written), (0, 0));
    assert!(score.answers >= prompts && requests > &prompts, "{score:?}");
}

#[test]
fn the_search_finds_what_is_there() {
    let mut corpus = Corpus::new(3);
    let prompt = corpus.prompt(8);
    assert!(corpus.count_in(prompt.text.as_bytes()) >= 8 - corpus.missed);
    assert!(corpus.count_in(serde_json::to_string(&prompt.text).unwrap().as_bytes()) >= 8 - corpus.missed);
    assert_eq!(corpus.count_in(b"nothing of it"), 0);
    let mut vault = Vault::new(ScopeKey::derive(&[1; 32], "t", None));
    let filter = Filter::new(Rules::all(Policy::Mask)).unwrap();
    let mut scopes = Scopes { own: &mut vault, shared: None };
    let masked = filter.mask_text("a@example.org", Some(&mut scopes), &mut Scratch::default()).unwrap();
    let token = String::from_utf8(masked.bytes.unwrap()).unwrap();
    let text = format!("a {token}, **{}**{} {token}x req_{token}", token[..4].to_ascii_lowercase(), &token[4..]);
    assert_eq!((tokens_in(&text), tokens_in("ZQ zqueue ZQPBXKRTCB")), (2, 0));
}
