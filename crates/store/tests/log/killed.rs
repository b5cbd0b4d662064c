//! Killed at a random moment under a thousand conversations: every acknowledged turn is there, with what
//! it told of its vault and with nothing else.
//!
//! `TIDEGATE_KILL_ROUNDS` changes the number of rounds, `TIDEGATE_KILL_SEED` where the dice begin.

use crate::child::{self, CROWD};
use crate::{Folder, story};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;
use tidegate_base::Prng;
use tidegate_store::{Settings, Store, StoreError};

/// Rounds on one file, each beginning with what the killed one left.
const ROUNDS_OF_A_FILE: u64 = 8;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect(name))
}

#[test]
fn every_acknowledged_turn_survives_a_kill_byte_for_byte_and_in_order() {
    let rounds = number("TIDEGATE_KILL_ROUNDS", 6);
    let seed = number("TIDEGATE_KILL_SEED", 1);
    let mut dice = Prng::new(seed);
    let (mut acknowledged_in_all, mut found_in_all, mut done) = (0, 0, 0);
    while done < rounds {
        let folder = Folder::new();
        let mut acknowledged = vec![0; CROWD as usize];
        for _ in 0..ROUNDS_OF_A_FILE.min(rounds - done) {
            done += 1;
            acknowledged_in_all += round(&folder, &mut dice, &mut acknowledged);
            let store = crate::open(&folder.log());
            let found = story::verify(&store, CROWD);
            for (conversation, (found, acknowledged)) in found.iter().zip(&acknowledged).enumerate() {
                let vault = store.vault(story::address(conversation as u32)).wait().unwrap();
                let told = (*found > 0).then(|| story::told(conversation as u32, 1..=*found));
                assert_eq!(vault, told, "each turn has what restores it, and there is nothing else");
                assert!(
                    found >= acknowledged,
                    "seed {seed}, round {done}: turn {acknowledged} of conversation {conversation} was acknowledged, \
                     {found} are there"
                );
            }
            found_in_all += found.iter().zip(&acknowledged).map(|(found, known)| u64::from(found - known)).sum::<u64>();
            acknowledged = found;
        }
    }
    println!(
        "{done} kills: {acknowledged_in_all} turns acknowledged, none lost; {found_in_all} more were found that had \
         been committed and not yet acknowledged"
    );
    assert!(acknowledged_in_all > rounds * 100, "too little happened to show anything");
}

/// Starts the crowd, kills it, and returns how many turns it acknowledged.
fn round(folder: &Folder, dice: &mut Prng, acknowledged: &mut [u32]) -> u64 {
    let mut crowd = child::command(&[], "crowd", &folder.log()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(crowd.stdout.take().unwrap()).lines();
    let (first, begun) = mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut told = Vec::new();
        // What is no text was cut in mid-line by the kill.
        for line in lines.map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            if let ["A", conversation, number] = words[..] {
                told.push((conversation.parse::<usize>().unwrap(), number.parse::<u32>().unwrap()));
                // Full when the first was told already.
                let _ = first.try_send(());
            }
        }
        told
    });
    begun.recv_timeout(Duration::from_secs(120)).expect("the crowd begins");
    let held = Store::open(&folder.log(), Settings::default()).unwrap_err();
    assert!(
        matches!(&held, StoreError::Held { path, pid: Some(pid) } if path.ends_with("log.db") && *pid == crowd.id()),
        "{held}"
    );
    // Nothing is sent any more: this is a wait of a random time.
    let (_silent, silence) = mpsc::sync_channel::<()>(0);
    let _ = silence.recv_timeout(Duration::from_micros(dice.below(300_000)));
    crowd.kill().unwrap();
    assert!(!crowd.wait().unwrap().success());
    let mut told = reader.join().unwrap();
    // The last line may be cut: "A 12 1" of "A 12 17".
    told.pop();
    for (conversation, number) in &told {
        assert_eq!(*number, acknowledged[*conversation] + 1, "conversation {conversation} goes on in order");
        acknowledged[*conversation] = *number;
    }
    told.len() as u64
}
