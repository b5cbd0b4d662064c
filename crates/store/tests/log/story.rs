//! Turns made from numbers: the same numbers, the same bytes.

use tidegate_base::Prng;
use tidegate_store::{Address, NewTurn, Status, Store, TokenCounts, TurnContent, VaultRecord, VaultRecords};

/// The tenant of all stories.
pub(crate) const TENANT: &str = "team-a";
/// Documents that several conversations send.
const DOCUMENTS: u64 = 12;

pub(crate) fn address(conversation: u32) -> Address {
    Address::new(TENANT, &format!("c-{conversation:04}")).unwrap()
}

/// What turn `number` of `conversation` says.
pub(crate) fn content(conversation: u32, number: u32) -> TurnContent {
    let mut dice = Prng::new(u64::from(conversation) << 32 | u64::from(number));
    let prose = |dice: &mut Prng, most: u64| -> String {
        const WORDS: [&str; 8] =
            ["tide", "gate", "\\u00e9t\\u00e9", "潮汐", " two  spaces ", "\\\"quoted\\\"", "1.50", "/"];
        (0..dice.below(most)).filter_map(|_| dice.pick(&WORDS).copied()).collect::<Vec<_>>().join(" ")
    };
    let text = prose(&mut dice, 200);
    let document = if dice.chance(0.1) {
        let (text, escaped) = (document(dice.below(DOCUMENTS)), dice.chance(0.3));
        let text = if escaped { text.replace('/', "\\/") } else { text };
        format!("{{\"type\":\"document\",\"source\":{{\"type\":\"base64\", \"data\":\"{text}\"}}}},")
    } else {
        String::new()
    };
    let space = if dice.chance(0.1) { "\n  " } else { "" };
    let request =
        format!("[{space}{{\"role\":\"user\",\"content\":[{document}{{\"type\":\"text\",\"text\":\"{text}\"}}]}}]");
    let answer = prose(&mut dice, 300);
    let answer = format!("{{\"role\":\"assistant\",\"content\":[{{\"type\":\"text\",\"text\":\"{answer}\"}}]}}");
    TurnContent {
        status: if dice.chance(0.1) { Status::Interrupted } else { Status::Complete },
        request: request.into_bytes(),
        answer: Some(answer.into_bytes()),
        request_hash: Some(std::array::from_fn(|_| dice.next_u64() as u8)),
        request_id: Some(format!("req_{conversation}_{number}")),
        end_user: Some(format!("user-{}", conversation % 7)),
        model: Some("claude-opus-4-8".to_owned()),
        stop_reason: dice.chance(0.9).then(|| "end_turn".to_owned()),
        tokens: TokenCounts {
            input: Some(dice.below(5000)),
            output: Some(7),
            cache_creation: None,
            cache_read: Some(0),
        },
    }
}

/// A document as base64 text.
pub(crate) fn document(number: u64) -> String {
    use base64::Engine;
    let mut dice = Prng::new(number).fork("document");
    let bytes: Vec<u8> = (0..3000 + dice.below(9000)).map(|_| dice.next_u64() as u8).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(crate) fn turn(conversation: u32, number: u32) -> NewTurn {
    NewTurn {
        address: address(conversation),
        expected: Some(number),
        now_ms: u64::from(number) * 1000,
        content: content(conversation, number),
        window: None,
        vault: None,
    }
}

/// The same turn with a record of its own for the conversation's vault.
pub(crate) fn sealed(conversation: u32, number: u32) -> NewTurn {
    NewTurn { vault: Some(told(conversation, number..=number)), ..turn(conversation, number) }
}

/// What such turns have told of the vault.
pub(crate) fn told(conversation: u32, numbers: std::ops::RangeInclusive<u32>) -> VaultRecords {
    let record = |number| VaultRecord { shared: number % 2 == 0, content: format!("{conversation} {number}").into() };
    VaultRecords { scope: format!("c-{conversation}"), records: numbers.map(record).collect() }
}

/// Appends turns 1 to `turns` of `conversation`.
pub(crate) fn tell(store: &Store, conversation: u32, turns: u32) {
    for number in 1..=turns {
        assert_eq!(store.append(turn(conversation, number)).wait().unwrap().number, number);
    }
}

/// Every turn of every conversation is what was told, in order, and the log holds together. Returns
/// how many turns each of `conversations` has.
pub(crate) fn verify(store: &Store, conversations: u32) -> Vec<u32> {
    let told = (0..conversations).map(|conversation| {
        let history = match store.read(address(conversation), 1).wait() {
            Ok(history) => history,
            Err(error) => {
                assert_eq!(error, tidegate_store::StoreError::NotFound);
                return 0;
            }
        };
        assert_eq!(history.next, None);
        assert_eq!(history.turns.len(), history.conversation.turns as usize);
        for (found, number) in history.turns.iter().zip(1..) {
            assert_eq!(found.number, number, "conversation {conversation}");
            assert!(
                found.content == content(conversation, number),
                "conversation {conversation}, turn {number} differs"
            );
        }
        history.conversation.turns
    });
    let told = told.collect();
    assert_eq!(store.check().wait(), Ok(Vec::new()));
    told
}
