//! Whatever a peer says on a socket, in whatever pieces and however it breaks off: each stream that was
//! asked for ends once, whole only if it was told whole, and the pool is left with nothing.
//!
//! A peer's script is drawn from a seed: frames that are right, frames that are wrong for one stream,
//! frames that are wrong for all, and bytes that are none; cut off anywhere. What each stream must have
//! come to is kept beside it, by rules written apart from the room.

use crate::peer::shaken;
use crate::scene::{PEER, ask, rules, scene, settle};
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_base::Prng;
use tidegate_transport::BoxIo;
use tidegate_wire::dialect::tidegate_v1::ClientFrame;
use tidegate_wire::websocket::{CloseCode, Event, MessageReader, Opcode, ReadRules, Role, write_close, write_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Scripts that are played.
const SEEDS: u64 = 400;
/// Streams of each.
const STREAMS: usize = 4;
/// Things that are said at most.
const SAID_MAX: u64 = 40;

/// What the client of one stream must have been told.
#[derive(Clone, Debug, Default)]
struct Truth {
    opened: bool,
    seq: u64,
    /// The body so far.
    body: String,
    /// Whole, or broken; nothing that comes later counts.
    end: Option<bool>,
}

/// What is to be said next: the bytes, and what they mean to whom, if they arrive whole.
struct Said {
    bytes: BytesMut,
    truths: BTreeMap<u64, Truth>,
}

/// A script as the bytes of its parts, each with what is true when it has come.
struct Script {
    dice: Prng,
    truths: BTreeMap<u64, Truth>,
    /// The socket cannot be believed any more.
    broken: bool,
    said: Vec<Said>,
}

impl Script {
    fn drawn(seed: u64) -> Vec<Said> {
        let truths = (1..=STREAMS as u64).map(|key| (key, Truth::default())).collect();
        let mut script = Script { dice: Prng::new(seed), truths, broken: false, said: Vec::new() };
        for _ in 0..script.dice.between(1, SAID_MAX) {
            script.say();
        }
        script.said
    }

    /// Says one thing.
    fn say(&mut self) {
        let key = self.dice.between(1, STREAMS as u64);
        let mut bytes = BytesMut::new();
        match self.dice.below(100) {
            0..55 => {
                let text = self.of_stream(key);
                self.text(&mut bytes, &text);
            }
            // What is about nobody, what a newer peer may say, and frames between messages.
            55..80 => {
                let texts = [
                    r#"{"type":"stream.new"}"#,
                    r#"{"type":"stream.end","id":"77","seq":0,"reason":"stop"}"#,
                    r#"{"type":"stream.wait","id":"x","position":1,"expected_ms":5}"#,
                ];
                match self.dice.below(5) {
                    3 => write_frame(&mut bytes, Opcode::Ping, true, None, b"are you there"),
                    4 => write_frame(&mut bytes, Opcode::Pong, true, None, b""),
                    n => self.text(&mut bytes, texts[n as usize]),
                }
            }
            80..94 => {
                let wait = format!(r#"{{"type":"stream.wait","id":"{key}","position":1,"expected_ms":5}}"#);
                self.text(&mut bytes, &wait);
            }
            94..97 => {
                let wrong = ["[]", "{", "null", r#"{"type":"stream.event","id":"1"}"#];
                let text = wrong[self.dice.below(4) as usize];
                self.text(&mut bytes, text);
                self.breaks();
            }
            97..98 => {
                write_frame(&mut bytes, Opcode::Binary, true, None, b"x");
                self.breaks();
            }
            98..99 => {
                write_close(&mut bytes, Some((CloseCode::GOING_AWAY, "")), None);
                self.breaks();
            }
            _ => {
                // A reserved bit: no frame at all, and what follows it is noise.
                bytes.extend_from_slice(&[0xf0 | self.dice.below(16) as u8]);
                (0..self.dice.below(64)).for_each(|_| bytes.extend_from_slice(&[self.dice.next_u64() as u8]));
                self.breaks();
            }
        }
        self.said.push(Said { bytes, truths: self.truths.clone() });
    }

    /// A message of text, whole or in two fragments.
    fn text(&mut self, out: &mut BytesMut, text: &str) {
        let at = self.dice.below(text.len() as u64) as usize;
        if self.dice.chance(0.3) {
            write_frame(out, Opcode::Text, false, None, &text.as_bytes()[..at]);
            write_frame(out, Opcode::Ping, true, None, b"");
            write_frame(out, Opcode::Continuation, true, None, &text.as_bytes()[at..]);
        } else {
            write_frame(out, Opcode::Text, true, None, text.as_bytes());
        }
    }

    /// Every stream that has not ended is broken.
    fn breaks(&mut self) {
        self.broken = true;
        self.truths.values_mut().for_each(|truth| truth.end = Some(truth.end.unwrap_or(false)));
    }

    /// A frame about a stream, mostly the one that is its turn.
    fn of_stream(&mut self, key: u64) -> String {
        let (dice, truth) = (&mut self.dice, self.truths.get_mut(&key).expect("a key of the script"));
        let over = truth.end.is_some() || self.broken;
        let what = if truth.opened { dice.below(20) } else { dice.below(3) * 20 };
        match what {
            0..12 if truth.opened => {
                // Now and then one is left out, or told twice.
                let wrong = if dice.chance(0.5) && truth.seq > 0 { truth.seq } else { truth.seq + 2 };
                let first = if dice.chance(0.15) { wrong } else { truth.seq + 1 };
                let last = first + dice.below(3);
                let event = format!(r#"{{"type":"e{last}"}}"#);
                if !over && first == truth.seq + 1 {
                    truth.seq = last;
                    truth.body += &format!("event: e{last}\ndata: {event}\n\n");
                } else if !over {
                    truth.end = Some(false);
                }
                format!(r#"{{"type":"stream.event","id":"{key}","first_seq":{first},"seq":{last},"event":{event}}}"#)
            }
            12 => {
                truth.end = Some(truth.end.unwrap_or(false));
                format!(r#"{{"type":"stream.recovered","id":"{key}","seq":0,"how":"restart","segment":2}}"#)
            }
            13..17 => {
                truth.end = Some(truth.end.unwrap_or(truth.opened));
                format!(r#"{{"type":"stream.end","id":"{key}","seq":{},"reason":"stop"}}"#, truth.seq)
            }
            17..20 => {
                let error = r#"{"type":"api_error","message":"m","details":{"error_code":"upstream_broken"}}"#;
                if !over {
                    truth.body += "ERROR";
                    truth.end = Some(true);
                }
                format!(r#"{{"type":"stream.error","id":"{key}","status":500,"error":{error},"request_id":"req_7"}}"#)
            }
            _ => {
                truth.opened |= !over;
                format!(r#"{{"type":"stream.open","id":"{key}","headers":{{"request-id":"req_9"}}}}"#)
            }
        }
    }
}

/// Reads what the client says until it has asked for all streams: what each of them is called there.
async fn asked(io: &mut BoxIo, mut early: BytesMut) -> BTreeMap<String, u64> {
    let rules = ReadRules { role: Role::Server, frame_bytes_max: 1 << 16, message_bytes_max: 1 << 16 };
    let (mut reader, mut names) = (MessageReader::new(rules), BTreeMap::new());
    loop {
        let mut bytes = &mut early[..];
        while !bytes.is_empty() {
            let step = reader.step(bytes).unwrap();
            if let Some(Event::Text(text)) = &step.event
                && let Ok(ClientFrame::Create(create)) = ClientFrame::read(text)
            {
                let word = create.request.split('"').nth(3).unwrap().to_owned();
                names.insert(word, create.id.parse().unwrap());
            }
            let used = step.used;
            bytes = &mut bytes[used..];
        }
        if names.len() == STREAMS {
            return names;
        }
        early.clear();
        // A connection that was opened for nobody closes again.
        if !io.read_buf(&mut early).await.is_ok_and(|n| n > 0) {
            return names;
        }
    }
}

/// Plays the script of `seed` up to a byte that is drawn, in pieces that are drawn: what is true then of
/// each stream, by the word it was asked with.
async fn play(seed: u64, io: BoxIo) -> BTreeMap<String, Truth> {
    let (mut io, early) = shaken(io).await;
    let names = asked(&mut io, early).await;
    let mut dice = Prng::new(seed).fork("cut");
    let script = Script::drawn(seed);
    let all: Vec<u8> = script.iter().flat_map(|said| said.bytes.to_vec()).collect();
    let cut = if dice.chance(0.5) { all.len() } else { dice.below(all.len() as u64 + 1) as usize };
    let (mut come, mut truths) = (0, BTreeMap::new());
    for said in &script {
        come += said.bytes.len();
        if come <= cut {
            truths.clone_from(&said.truths);
        }
    }
    let mut left = &all[..cut];
    while !left.is_empty() {
        let piece = dice.between(1, 40).min(left.len() as u64) as usize;
        // A client that has had enough has closed.
        if io.write_all(&left[..piece]).await.is_err() {
            break;
        }
        left = &left[piece..];
        if dice.chance(0.2) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // What the client still says is taken: a reset would overtake what was written.
    let mut rest = BytesMut::new();
    let _ = tokio::time::timeout(Duration::from_millis(20), io.read_buf(&mut rest)).await;
    names.into_iter().map(|(word, key)| (word, truths.get(&key).cloned().unwrap_or_default())).collect()
}

/// How a stream came out: its body, if it was whole, or why not.
async fn told(pool: &tidegate_upstream::Pool, word: &str) -> Result<String, String> {
    let mut exchange = ask(pool, word).await.map_err(|e| e.to_string())?;
    let body = exchange.read_body(1 << 16).await.map_err(|e| e.to_string())?;
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn each_stream_ends_once_and_whole_only_if_it_was_told_whole() {
    let mut counts = [0; 2];
    for seed in 0..SEEDS {
        let scene = scene(rules());
        let truths = Arc::new(Mutex::new(BTreeMap::new()));
        let noted = Arc::clone(&truths);
        scene.listen(move |number, io| {
            let noted = Arc::clone(&noted);
            async move {
                if number == 1 {
                    let played = play(seed, io).await;
                    *noted.lock().unwrap() = played;
                } else {
                    // Those that were not taken up ask again, and learn nothing.
                    drop(asked(&mut shaken(io).await.0, BytesMut::new()).await);
                }
            }
        });
        let words: Vec<String> = (0..STREAMS).map(|n| format!("w{n}")).collect();
        let streams: Vec<_> = words
            .iter()
            .map(|word| {
                let (pool, word) = (Arc::clone(&scene.pool), word.clone());
                scene.tasks.spawn(&PEER, async move { told(&pool, &word).await })
            })
            .collect();
        let mut heard = Vec::new();
        for stream in streams {
            let ended = tokio::time::timeout(Duration::from_secs(600), stream).await;
            heard.push(ended.unwrap_or_else(|_| panic!("seed {seed}: a stream has no end")).unwrap());
        }
        settle().await;
        let truths = truths.lock().unwrap().clone();
        for (word, heard) in words.iter().zip(heard) {
            let truth = truths.get(word).unwrap_or_else(|| panic!("seed {seed}: {word} was not asked for"));
            let whole = truth.end == Some(true);
            assert_eq!(heard.is_ok(), whole, "seed {seed}, {word}: {heard:?} {truth:?}");
            if let Ok(heard) = heard {
                let (body, error) = truth.body.split_once("ERROR").map_or((&*truth.body, false), |(b, _)| (b, true));
                assert!(heard.starts_with(body), "seed {seed}, {word}: {heard:?} {truth:?}");
                let rest = &heard[body.len()..];
                assert_eq!((rest.is_empty(), rest.matches("upstream_broken").count()), (!error, usize::from(error)));
            }
            counts[usize::from(whole)] += 1;
        }
        scene.ends_with_nothing().await;
    }
    assert!(counts.iter().all(|n| *n > SEEDS / 4), "both kinds of end are drawn: {counts:?}");
}
