//! `tidegate redact` on long texts: what is found does not depend on where a piece ends, and memory
//! does not depend on the text.

use super::{redact, values};
use crate::process::command;
use std::io::{Read, Write};
use std::process::Stdio;
use tidegate_base::Prng;
use tidegate_redact::detect::Scratch;
use tidegate_redact::kind::Kind;
use tidegate_redact::mask::Filter;
use tidegate_redact::rules::{Policy, Rules, Style};

/// The window's own numbers, told again: a value is put across each place where a piece may end.
const PIECE_BYTES: usize = 1 << 20;
const AHEAD_BYTES: usize = 128 << 10;

/// The text as it is masked in one go, which is how the gateway masks a body.
fn at_once(text: &str) -> String {
    let rules = Rules { style: Style::Tag, ..Rules::all(Policy::Mask) };
    let masked = Filter::new(rules).unwrap().mask_text(text, None, &mut Scratch::default()).unwrap();
    masked.bytes.map_or_else(|| text.to_owned(), |bytes| String::from_utf8(bytes).unwrap())
}

/// Words without anything in them, `bytes` of them.
fn filler(dice: &mut Prng, bytes: usize, between: &str) -> String {
    let words = ["tide", "gate", "harbour", "und", "dann", "请核对", "谢谢", "the", "river"];
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        text.push_str(dice.pick(&words).unwrap());
        text.push_str(if dice.chance(0.1) { between } else { " " });
    }
    text
}

/// The first difference, for people.
fn differ(a: &str, b: &str) -> Option<(usize, String, String)> {
    let at =
        a.bytes().zip(b.bytes()).position(|(a, b)| a != b).or((a.len() != b.len()).then(|| a.len().min(b.len())))?;
    let show = |text: &str| {
        String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(40)..(at + 40).min(text.len())]).into_owned()
    };
    Some((at, show(a), show(b)))
}

#[test]
fn a_value_across_the_end_of_a_piece_is_found_wherever_it_is_cut() {
    let mut dice = Prng::new(7);
    let key = values::private_key(&mut dice);
    let long_key = key.replacen('\n', &format!("\n{}", "QUJDRA\n".repeat(3_000)), 2);
    for between in ["\n", " "] {
        for value in
            ["客户手机 138 0013 8000 。", "passport E12345678,", &key, &long_key, "我的身份证号：110105194912\n31002X "]
        {
            for back in [1, value.len() / 3, value.len() / 2, value.len() - 1] {
                // The first piece ends so far behind its beginning, or at the line's end before.
                let lead = filler(&mut dice, PIECE_BYTES - AHEAD_BYTES - back - 20, between);
                let text = format!("{lead}{between}{value}{between}{}", filler(&mut dice, 300_000, between));
                let (code, out, err) = redact(&[], &text);
                assert_eq!((code, err.as_str()), (0, ""));
                assert_eq!(differ(&out, &at_once(&text)), None, "{} back {back}", &value[..9]);
            }
        }
    }
}

#[test]
fn pieces_of_a_text_with_values_everywhere_are_masked_like_the_whole() {
    let mut dice = Prng::new(11);
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| !matches!(kind, Kind::Name | Kind::Address | Kind::Custom | Kind::Password))
        .collect();
    let mut text = String::new();
    while text.len() < 5 * PIECE_BYTES / 2 {
        let kind = *dice.pick(&kinds).unwrap();
        let (word, value) = values::of(&mut dice, kind);
        text.push_str(&filler(&mut dice, 60, "\n"));
        text.push_str(&format!("{word}: {value}"));
        text.push_str(if dice.chance(0.5) { "\n" } else { "; " });
    }
    let (code, out, err) = redact(&[], &text);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(differ(&out, &at_once(&text)), None);
}

#[test]
fn memory_does_not_grow_with_the_text() {
    let mut child = command(&["redact"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut buffer, mut all) = (vec![0; 1 << 16], 0);
        loop {
            match stdout.read(&mut buffer).unwrap() {
                0 => return all,
                count => all += count,
            }
        }
    });
    let mut stdin = child.stdin.take().unwrap();
    let line = "2026-11-23 request from 203.0.113.9 by li.wei@example.org took 13 ms\n".repeat(1_000);
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    let mut after = Vec::new();
    for part in 0..3 {
        // 4 MB, then 16 MB, then 32 MB more.
        for _ in 0..[60, 240, 480][part] {
            stdin.write_all(line.as_bytes()).unwrap();
        }
        after.push(peak());
    }
    drop(stdin);
    assert!(reader.join().unwrap() > 30_000_000);
    assert!(child.wait().unwrap().success());
    assert!(after[2] < 64 << 20 && after[2] - after[0] < 16 << 20, "{after:?}");
}
