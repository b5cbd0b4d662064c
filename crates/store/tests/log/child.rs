//! The other process: this program again, told by its environment what to do.
//!
//! It says each acknowledgement in a line of its own, `A conversation turn`, written to the pipe
//! before anything else happens.

use crate::story::{self, TENANT};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use tidegate_store::{Durability, Settings, Store, StoreError};

const WHAT: &str = "TIDEGATE_STORE_CHILD";
const WHERE: &str = "TIDEGATE_STORE_CHILD_LOG";
/// Threads that append in the crowd.
const THREADS: u32 = 8;
/// Conversations of the crowd.
pub(crate) const CROWD: u32 = 1_000;
/// Turns of the one that is traced.
pub(crate) const TRACED: u32 = 20;

/// What follows `command`, if any, to start this program as the child that does `what`.
pub(crate) fn command(before: &[&str], what: &str, log: &std::path::Path) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = match before.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
        None => Command::new(this),
    };
    command.args(["--ignored", "--exact", "child::child"]).env(WHAT, what).env(WHERE, log);
    command
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn child() {
    let what = std::env::var(WHAT).expect("started by another test");
    let log = PathBuf::from(std::env::var_os(WHERE).unwrap());
    match what.as_str() {
        "crowd" => crowd(Store::open(&log, Settings::default()).unwrap()),
        "synced" => one_by_one(&log, Durability::PowerLoss),
        "unsynced" => one_by_one(&log, Durability::None),
        "full" => crate::full::until_full(&log),
        other => panic!("a child cannot {other}"),
    }
}

fn acknowledge(conversation: u32, number: u32) {
    tell(&format!("A {conversation} {number}"));
}

/// Writes a line in one piece. Not `println!`: the test harness would keep it.
fn tell(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Appends to a thousand conversations at once until it is killed.
fn crowd(store: Store) {
    let mut next = vec![1; CROWD as usize];
    for known in store.list(TENANT, None, CROWD).wait().unwrap().conversations {
        let conversation: usize = known.name.trim_start_matches("c-").parse().unwrap();
        next[conversation] = known.turns + 1;
    }
    std::thread::scope(|scope| {
        for (thread, part) in next.chunks(CROWD.div_ceil(THREADS) as usize).enumerate() {
            let first = thread as u32 * CROWD.div_ceil(THREADS);
            let (store, mut part) = (&store, part.to_vec());
            scope.spawn(move || {
                loop {
                    let asked: Vec<_> =
                        part.iter().zip(first..).map(|(number, c)| store.append(story::sealed(c, *number))).collect();
                    for (answer, (number, conversation)) in asked.into_iter().zip(part.iter_mut().zip(first..)) {
                        match answer.wait() {
                            Ok(appended) => {
                                assert_eq!(appended.number, *number);
                                acknowledge(conversation, *number);
                                *number += 1;
                            }
                            Err(StoreError::Overloaded) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
}

/// Appends turns one after the other; the first that fails is told, and so is what the next says.
fn one_by_one(log: &std::path::Path, durability: Durability) {
    let store = Store::open(log, Settings { durability, ..Settings::default() }).unwrap();
    for number in 1..=TRACED {
        match store.append(story::turn(1, number)).wait() {
            Ok(_) => acknowledge(1, number),
            Err(error) => {
                let after = store.append(story::turn(2, 1)).wait();
                assert_eq!(after.as_ref(), Err(&error), "nothing is taken after a failed sync");
                tell(&format!("F {error}"));
                return;
            }
        }
    }
}
