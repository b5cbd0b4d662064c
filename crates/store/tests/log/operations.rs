//! What each operation does, and which error it gives.

use crate::story::{self, TENANT, address, content};
use crate::{Folder, open};
use tidegate_store::{
    Address, Export, NewTurn, PageCursor, Retention, Settings, Status, Store, StoreError, Summary, TurnContent, Window,
};

fn summary(first_turn: u32, last_turn: u32) -> Summary {
    let body = format!("{{\"goals\":[\"{first_turn} to {last_turn}\"]}}").into_bytes();
    Summary { first_turn, last_turn, created_ms: 5, model: "claude-haiku-4-5".to_owned(), body }
}

#[test]
fn a_turn_gets_the_number_that_was_expected_or_nothing_happens() {
    let folder = Folder::new();
    let store = open(&folder.log());
    assert_eq!(store.append(story::turn(1, 2)).wait(), Err(StoreError::Conflict { expected: 2, next: 1 }));
    assert_eq!(store.read(address(1), 1).wait(), Err(StoreError::NotFound), "no conversation was made of it");
    story::tell(&store, 1, 2);
    assert_eq!(store.append(story::turn(1, 2)).wait(), Err(StoreError::Conflict { expected: 2, next: 3 }));
    let next = NewTurn { expected: None, ..story::turn(1, 3) };
    assert_eq!(store.append(next).wait().unwrap().number, 3);
    assert_eq!(story::verify(&store, 2), [0, 3]);
}

#[test]
fn two_turns_at_once_for_one_number_become_one_turn_and_one_conflict() {
    let folder = Folder::new();
    let store = open(&folder.log());
    for number in 1..=50 {
        let twins = [store.append(story::turn(1, number)), store.append(story::turn(1, number))];
        let [first, second] = twins.map(|twin| twin.wait().map(|appended| appended.number));
        assert_eq!((first, second), (Ok(number), Err(StoreError::Conflict { expected: number, next: number + 1 })));
    }
    assert_eq!(story::verify(&store, 2), [0, 50]);
}

#[test]
fn a_retry_is_known_by_the_hash_of_its_body() {
    let folder = Folder::new();
    let store = open(&folder.log());
    story::tell(&store, 1, 20);
    let find = |number| store.find_request(address(1), content(1, number).request_hash.unwrap()).wait();
    assert_eq!((find(20), find(13)), (Ok(Some(20)), Ok(Some(13))));
    assert_eq!(find(12), Ok(None), "only the last eight are looked at");
    assert_eq!(store.find_request(address(2), [0; 32]).wait(), Ok(None), "no such conversation: nothing to replay");
}

#[test]
fn what_breaks_the_format_is_refused_with_a_reason() {
    let folder = Folder::new();
    let store =
        Store::open(&folder.log(), Settings { conversation_bytes_max: 100_000, ..Settings::default() }).unwrap();
    for name in ["", "a\nb", &"x".repeat(129)] {
        assert!(matches!(Address::new(TENANT, name), Err(StoreError::Invalid(_))));
    }
    assert!(Address::new(TENANT, &"潮".repeat(128)).is_ok());
    let refused = |change: &dyn Fn(&mut TurnContent)| {
        let mut turn = story::turn(1, 1);
        change(&mut turn.content);
        store.append(turn).wait().unwrap_err()
    };
    let invalid: [&dyn Fn(&mut TurnContent); 7] = [
        &|content| content.request = b"{}".to_vec(),
        &|content| content.request = b"[1".to_vec(),
        &|content| content.answer = Some(b"\"x\"".to_vec()),
        &|content| content.answer = None,
        &|content| content.status = Status::Appended,
        &|content| content.end_user = Some("u".repeat(513)),
        &|content| content.model = Some(String::new()),
    ];
    for change in invalid {
        assert!(matches!(refused(change), StoreError::Invalid(_)));
    }
    let long = |bytes: usize| format!("[\"{}\"]", " ".repeat(bytes - 4)).into_bytes();
    let too_large = refused(&|content| content.request = long((64 << 20) + 1));
    assert!(matches!(too_large, StoreError::TooLarge { what: "bytes of a turn", max: 67_108_864, .. }), "{too_large}");
    let too_large = refused(&|content| content.request = long(100_000));
    assert!(matches!(too_large, StoreError::TooLarge { what: "bytes of a conversation", max: 100_000, .. }));
    assert_eq!(store.stats().wait().unwrap().tenants, [], "nothing was stored of all that");
}

#[test]
fn a_fork_has_the_turns_up_to_its_point_and_lives_on_its_own() {
    let folder = Folder::new();
    let store = open(&folder.log());
    story::tell(&store, 1, 30);
    store.add_summary(address(1), summary(1, 5)).wait().unwrap();
    store.add_summary(address(1), summary(6, 25)).wait().unwrap();
    store.put_window(address(1), 8, b"state".to_vec()).wait().unwrap();
    let fork = |turn, name| store.fork(address(1), turn, name, 777).wait();
    assert_eq!((fork(0, "f"), fork(31, "f")), (Err(StoreError::NotFound), Err(StoreError::NotFound)));
    assert_eq!(fork(10, "f"), Ok(()));
    assert_eq!(fork(10, "f"), Err(StoreError::Exists));
    let forked = Address::new(TENANT, "f").unwrap();
    let original = store.read(address(1), 1).wait().unwrap();
    let history = store.read(forked.clone(), 1).wait().unwrap();
    assert_eq!(history.turns, original.turns[..10]);
    assert_eq!(history.summaries, [summary(1, 5)]);
    assert_eq!(history.window, Some(Window { turns: 8, state: b"state".to_vec() }));
    assert_eq!(history.conversation.parent, Some((address(1).name().to_owned(), 10)));
    assert_eq!(history.conversation.updated_ms, 777);
    store.delete(address(1)).wait().unwrap();
    assert_eq!(store.read(forked, 1).wait().unwrap().turns, original.turns[..10], "documents are still there");
    assert_eq!(store.check().wait(), Ok(Vec::new()));
}

#[test]
fn documents_are_stored_once_and_go_with_their_last_turn() {
    let folder = Folder::new();
    let store = open(&folder.log());
    let with = |document: u64| {
        let text = story::document(document);
        TurnContent::appended(format!("[{{\"data\":\"{text}\"}},{{\"data\":\"{text}\"}}]").into_bytes())
    };
    let append = |name: &str, document| {
        let address = Address::new(TENANT, name).unwrap();
        let turn = NewTurn { address, expected: None, now_ms: 1, content: with(document), window: None, vault: None };
        store.append(turn).wait().unwrap();
    };
    let blobs = || store.stats().wait().unwrap().blobs;
    for (name, document) in [("a", 1), ("a", 1), ("b", 1), ("b", 2)] {
        append(name, document);
    }
    assert_eq!(blobs(), 2);
    let delete = |name| store.delete(Address::new(TENANT, name).unwrap()).wait().unwrap();
    delete("a");
    assert_eq!(blobs(), 2);
    let history = store.read(Address::new(TENANT, "b").unwrap(), 1).wait().unwrap();
    assert!(history.turns[0].content == with(1) && history.turns[1].content == with(2));
    delete("b");
    assert_eq!(blobs(), 0);
}

#[test]
fn a_listing_is_paged_from_the_last_change_on_and_a_clock_that_goes_back_does_not_disturb_it() {
    let folder = Folder::new();
    let store = open(&folder.log());
    for (conversation, now_ms) in [(1, 300), (2, 100), (3, 200), (2, 250), (1, 10)] {
        store.append(NewTurn { expected: None, now_ms, ..story::turn(conversation, 1) }).wait().unwrap();
    }
    let page = |cursor: Option<PageCursor>| {
        let page = store.list(TENANT, cursor, 2).wait().unwrap();
        let names: Vec<_> = page.conversations.iter().map(|one| (one.name.clone(), one.updated_ms)).collect();
        (names, page.next)
    };
    let (first, next) = page(None);
    assert_eq!(first, [("c-0001".to_owned(), 300), ("c-0002".to_owned(), 250)]);
    let next = next.unwrap().to_string().parse().unwrap();
    assert_eq!(page(Some(next)), (vec![("c-0003".to_owned(), 200)], None));
    assert!("x".parse::<PageCursor>().is_err());
    assert_eq!(store.list("team-b", None, 10).wait().unwrap().conversations, [], "another tenant's");
}

#[test]
fn retention_deletes_what_changed_longest_ago_and_says_what() {
    let folder = Folder::new();
    let store = open(&folder.log());
    for conversation in 0..200 {
        store
            .append(NewTurn { now_ms: 1000 + u64::from(conversation), ..story::turn(conversation, 1) })
            .wait()
            .unwrap();
    }
    let retain = |keep| {
        let deleted = store.retain(TENANT, keep, 2000).wait().unwrap();
        assert!(deleted.wal_cleared && !deleted.more && deleted.stopped_by.is_none());
        deleted.conversations.iter().map(|gone| gone.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(retain(Retention::default()), [""; 0]);
    assert_eq!(retain(Retention { age_ms_max: Some(998), ..Retention::default() }), ["c-0000", "c-0001"]);
    let gone = retain(Retention { conversations_max: Some(50), ..Retention::default() });
    assert_eq!((gone.len(), gone[0].as_str(), gone[147].as_str()), (148, "c-0002", "c-0149"), "over several steps");
    let bytes = store.stats().wait().unwrap().tenants[0].bytes;
    let last = store.list(TENANT, None, 1000).wait().unwrap().conversations.pop().unwrap();
    assert_eq!(retain(Retention { bytes_max: Some(bytes - 1), ..Retention::default() }), [last.name]);
    assert_eq!(retain(Retention { bytes_max: Some(0), ..Retention::default() }).len(), 49);
    assert_eq!(store.stats().wait().unwrap().tenants, []);
    assert_eq!(store.check().wait(), Ok(Vec::new()));
}

#[test]
fn an_export_read_again_is_the_same_conversations() {
    let folder = Folder::new();
    let store = open(&folder.log());
    for conversation in 0..12 {
        story::tell(&store, conversation, 1 + conversation);
    }
    store.add_summary(address(11), summary(1, 5)).wait().unwrap();
    store.fork(address(11), 3, "a fork", 9).wait().unwrap();
    // Longer than a chunk, so that the walk is interrupted in mid-conversation.
    for number in 13..=20 {
        let mut turn = story::turn(11, number);
        turn.content.request = format!("[\"{}\"]", format!("{number} ").repeat(1 << 20)).into_bytes();
        store.append(turn).wait().unwrap();
    }
    let export = |store: &Store, what: Export| {
        let (mut lines, mut cursor, mut chunks) = (Vec::new(), None, 0);
        loop {
            let chunk = store.export(what.clone(), cursor).wait().unwrap();
            lines.push(chunk.lines);
            chunks += 1;
            cursor = chunk.next;
            if cursor.is_none() {
                return (lines, chunks);
            }
        }
    };
    let (chunks, count) = export(&store, Export::Tenant(TENANT.to_owned()));
    assert!(count > 2, "{count}");
    let lines: u64 = chunks.iter().map(|chunk| chunk.iter().filter(|byte| **byte == b'\n').count() as u64).sum();
    assert_eq!(lines, 1 + 13 + (78 + 8 + 3) + 1);
    let elsewhere = Folder::new();
    let other = open(&elsewhere.log());
    // All twice: what is there is passed over.
    for round in 0..2 {
        let mut added = 0;
        for chunk in &chunks {
            added += other.import(TENANT, chunk.clone()).wait().unwrap().added;
        }
        assert_eq!(added, if round == 0 { lines - 1 } else { 0 });
    }
    assert_eq!(export(&other, Export::Tenant(TENANT.to_owned())).0.concat(), chunks.concat());
    assert_eq!(other.check().wait(), Ok(Vec::new()));
    let (of_one, _) = export(&store, Export::EndUser { tenant: TENANT.to_owned(), end_user: "user-3".to_owned() });
    let of_one = String::from_utf8(of_one.concat()).unwrap();
    assert!(of_one.contains("\"c-0003\"") && of_one.contains("\"c-0010\"") && !of_one.contains("\"c-0004\""));
    let (of_one, _) = export(&store, Export::Conversation(address(2)));
    assert_eq!(String::from_utf8(of_one.concat()).unwrap().lines().count(), 1 + 1 + 3);
}

#[test]
fn an_import_that_contradicts_what_is_there_changes_nothing() {
    let folder = Folder::new();
    let store = open(&folder.log());
    story::tell(&store, 1, 2);
    let line = |number: u32, text: &str| {
        format!(
            "{{\"type\":\"turn\",\"conversation\":\"c-0001\",\"number\":{number},\"status\":\"appended\",\
             \"created_ms\":5,\"request\":[\"{text}\"]}}\n"
        )
    };
    let import = |lines: String| store.import(TENANT, lines.into_bytes()).wait();
    let at = |line, why| Err(StoreError::AtLine { line, why: Box::new(why) });
    assert_eq!(import(line(3, "new") + "\n" + &line(2, "other")), at(3, StoreError::Exists));
    assert_eq!(import(line(4, "gap")), at(1, StoreError::Conflict { expected: 4, next: 3 }));
    assert_eq!(import(line(3, "new") + "{"), at(2, StoreError::Invalid("the line is no JSON, at column 1".to_owned())));
    assert_eq!(story::verify(&store, 2), [0, 2]);
    assert_eq!(import(line(3, "new")).unwrap().added, 1);
}

#[tokio::test]
async fn answers_can_be_awaited_and_a_dropped_one_is_made_all_the_same() {
    let folder = Folder::new();
    let store = open(&folder.log());
    drop(store.append(story::turn(1, 1)));
    assert_eq!(store.append(story::turn(1, 2)).await.unwrap().number, 2);
    assert_eq!(store.read(address(1), 2).await.unwrap().turns[0].content, content(1, 2));
}

#[test]
fn a_closed_store_has_finished_what_was_asked_for() {
    let folder = Folder::new();
    let store = open(&folder.log());
    let asked: Vec<_> = (0..200).map(|conversation| store.append(story::turn(conversation, 1))).collect();
    drop(store);
    asked.into_iter().for_each(|answer| assert_eq!(answer.wait().unwrap().number, 1));
    assert!(!folder.0.join("log.db-wal").exists(), "a closed log is one file");
    assert_eq!(story::verify(&open(&folder.log()), 200), [1; 200]);
}

#[test]
fn a_second_opening_is_refused_and_says_who_holds_it() {
    let folder = Folder::new();
    let store = open(&folder.log());
    let link = folder.0.join("link.db");
    std::os::unix::fs::symlink(folder.log(), &link).unwrap();
    for path in [folder.log(), link] {
        let refused = Store::open(&path, Settings::default()).unwrap_err();
        let pid = Some(std::process::id());
        assert_eq!(refused, StoreError::Held { path: folder.log().canonicalize().unwrap(), pid });
        assert!(
            refused.to_string().contains(&format!("log.db is open in another process (pid {})", std::process::id()))
        );
    }
    drop(store);
    open(&folder.log());
}

#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let store = open(&folder.log());
    story::tell(&store, 1, 1);
    for name in ["log.db", "log.db-wal", "log.db-shm", "log.db.lock"] {
        let mode = std::fs::metadata(folder.0.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
