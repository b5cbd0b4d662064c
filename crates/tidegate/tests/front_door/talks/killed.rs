//! The gateway killed at random moments under a thousand conversations: whatever a client saw the
//! end of is there, as it saw it, and everybody goes on.
//!
//! `cargo xtask durability --rounds 300 --seed 7`. Each round begins on the file that the killed
//! process left; clients send what they got no answer to again, as the SDKs do. A turn that is in
//! the file must then be given again and not asked anew, and one that is not must be asked.

use super::crowd::{self, CROWD, Talk, Tally};
use crate::process::{Folder, Tidegate};
use std::time::{Duration, Instant};
use tidegate_base::Prng;

/// Rounds on one file.
const ROUNDS_OF_A_FILE: u64 = 8;
/// How long a round goes on after its first turn was acknowledged, at most.
const ROUND_MAX_US: u64 = 1_200_000;

#[test]
fn what_a_client_saw_the_end_of_survives_a_kill_and_everybody_goes_on() {
    let rounds = super::number("TIDEGATE_DURABILITY_ROUNDS", 3);
    let seed = super::number("TIDEGATE_DURABILITY_SEED", 1);
    println!("{rounds} rounds from seed {seed}");
    let mut dice = Prng::new(seed);
    let (mut sums, mut done, began) = (Tally::default(), 0, Instant::now());
    while done < rounds {
        let folder = Folder::new();
        let mut talks: Vec<Talk> = (0..CROWD).map(Talk::new).collect();
        for _ in 0..ROUNDS_OF_A_FILE.min(rounds - done) {
            done += 1;
            let when = format!("seed {seed}, round {done}");
            let (after, tally) = round(talks, &folder, &mut dice, &when);
            talks = after;
            sums.acknowledged += tally.acknowledged;
            sums.ahead += tally.ahead;
            sums.replayed += tally.replayed;
            sums.again += tally.again;
            if done.is_multiple_of(20) {
                println!("{done} rounds in {:?}: {sums:?}", began.elapsed());
            }
        }
    }
    println!(
        "{done} kills under {CROWD} conversations: {} turns acknowledged, none lost; {} more were kept before their \
         client knew; of the requests sent again {} were given their turn again and {} asked anew",
        sums.acknowledged, sums.ahead, sums.replayed, sums.again
    );
    assert!(sums.acknowledged > rounds * 200, "too little happened to show anything");
}

fn round(talks: Vec<Talk>, folder: &Folder, dice: &mut Prng, when: &str) -> (Vec<Talk>, Tally) {
    let file = folder.path("conversations.db");
    let scenario = folder.write("quick.toml", super::QUICK_SCENARIO);
    let flags = ["--log-level", "warn", "--scenario", &scenario, "--conversations", &file];
    let mut tidegate = Tidegate::simulated_with("", &flags);
    let pause = Duration::from_micros(dice.below(ROUND_MAX_US));
    let (mut talks, mut tally) = super::runtime().block_on(crowd::round(talks, tidegate.gateway, async |tally| {
        let began = Instant::now();
        while tally.get().acknowledged == 0 {
            assert!(began.elapsed() < super::ANSWER_MAX, "{when}: nobody is answered");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(pause).await;
        tidegate.signal("KILL");
        assert_eq!(tidegate.exit(Duration::from_secs(10)), None, "killed, so without a code");
    }));
    assert!(!tidegate.output().contains("panicked"), "{when}: {}", tidegate.output());
    drop(tidegate);
    crowd::verify(&mut talks, &file, &mut tally, when);
    (talks, tally)
}
