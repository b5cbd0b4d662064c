//! Two processes of one gateway: the elder, which ends what it began, and the heir, which begins what
//! comes.
//!
//! They share the conversation log's file. A conversation is the elder's until the heir has asked for
//! it and been given it, once and for good; so it has one process at a time that knows it, and what one
//! of them keeps of it in memory is what the log has. The elder gives a conversation when its turn under
//! way has ended, and takes none of it any more: a request that reaches it all the same is told to come
//! again, to the heir.
//!
//! ```text
//!   heir:  a turn of c ─▶ is c in memory? ─▶ ask the elder ─▶ read c from the log ─▶ go on
//!   elder:                                    └ wait for c's turn, note "given", answer
//! ```
//! An elder that is gone has given everything. What lies between the two processes is not known here: an
//! heir asks by a channel.
//!
//! An heir may have an heir itself while its elder still ends what it began. Each asks only the one before
//! it, so the one in the middle asks on for what it does not have, and lives until its own elder has ended.
//!
//! Operators come to the heir alone. So it asks the elder for the streams that still run there, and carries
//! what cancels one of them.

use crate::house::House;
use crate::listing;
use crate::memory::{Memory, TurnTrouble};
use crate::streams::Owner;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tidegate_base::StreamId;
use tidegate_store::Address;
use tidegate_transport::Clock;
use tokio::sync::{mpsc, oneshot};

/// Conversations that are given one by one; past them all are given. Each takes some hundred bytes.
const GIVEN_MAX: usize = 262_144;

/// Live rows that an elder shows its heir at most: some megabytes of a line.
const LISTED_MAX: usize = 2_000;

/// The process before this one did not say what it was asked for, and has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ElderSilent;

/// What an heir asks its elder for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// A conversation: the answer is yes, sooner or later.
    Conversation {
        /// Whose it is.
        tenant: String,
        /// What it is called.
        name: String,
    },
    /// Whether a stream still runs there.
    Stream {
        /// Which one.
        id: StreamId,
        /// Whose it is: nobody learns of another's.
        tenant: String,
        /// The hash of the upstream credential it was asked for with, if there was one.
        own: Option<u64>,
    },
    /// That it calls a stream off, as its client wishes; the answer is whether it ran.
    CallOff {
        /// Which one.
        id: StreamId,
        /// Whose it is.
        tenant: String,
        /// As above.
        own: Option<u64>,
    },
    /// That it cancels a request, as an operator wishes; the answer is whether there is one.
    Cancel(StreamId),
    /// Its live and finished requests, by a query of `/streams`.
    Listing(String),
}

/// What an elder answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// Yes or no.
    Is(bool),
    /// What is shown to operators.
    Page(Value),
}

/// How long operators and clients wait for an elder's word on what it could say at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// A claim, and whom to tell. Nobody answering means that the elder is gone.
#[derive(Debug)]
pub struct Claim {
    /// What is claimed.
    pub what: Claimed,
    /// The elder's word.
    pub answer: oneshot::Sender<Word>,
}

/// What was given away.
#[derive(Debug, Default)]
struct Given {
    all: bool,
    conversations: BTreeSet<Address>,
}

/// A process' place among its likes.
#[derive(Debug, Default)]
pub(crate) struct Succession {
    elder: OnceLock<mpsc::Sender<Claim>>,
    given: Mutex<Given>,
}

impl Succession {
    /// There is a process before this one.
    pub(crate) fn follows(&self, elder: mpsc::Sender<Claim>) {
        let _ = self.elder.set(elder);
    }

    /// Whether there still is a process before this one.
    pub(crate) fn has_elder(&self) -> bool {
        self.elder.get().is_some_and(|elder| !elder.is_closed())
    }

    /// Waits until the process before this one has ended; for ever, if there was none.
    pub(crate) async fn elder_ended(&self) {
        match self.elder.get() {
            Some(elder) => elder.closed().await,
            None => std::future::pending().await,
        }
    }

    async fn claim(&self, what: Claimed) -> Option<Word> {
        let elder = self.elder.get()?;
        let (answer, word) = oneshot::channel();
        elder.send(Claim { what, answer }).await.ok()?;
        word.await.ok()
    }

    /// Waits until a conversation is this process'. Asked with its turn in hand, before it is read.
    pub(crate) async fn own(&self, address: &Address) {
        let (tenant, name) = (address.tenant().to_owned(), address.name().to_owned());
        self.claim(Claimed::Conversation { tenant, name }).await;
    }

    /// Whether `owner`'s stream that is not known here runs in a process before.
    pub(crate) async fn runs_elsewhere(&self, id: StreamId, owner: &Owner) -> bool {
        let tenant = owner.tenant.as_ref().to_owned();
        self.claim(Claimed::Stream { id, tenant, own: owner.own }).await == Some(Word::Is(true))
    }

    /// Whether a process before called `owner`'s stream off, which ran there. An error if it does not say.
    pub(crate) async fn calls_off(&self, clock: Clock, id: StreamId, owner: &Owner) -> Result<bool, ElderSilent> {
        let tenant = owner.tenant.as_ref().to_owned();
        match clock.within(PATIENCE, self.claim(Claimed::CallOff { id, tenant, own: owner.own })).await {
            Some(word) => Ok(word == Some(Word::Is(true))),
            None => Err(ElderSilent),
        }
    }

    /// Whether a process before had such a request, and cancels it.
    pub(crate) async fn cancels(&self, clock: Clock, id: StreamId) -> bool {
        clock.within(PATIENCE, self.claim(Claimed::Cancel(id))).await.flatten() == Some(Word::Is(true))
    }

    /// What the process before shows of its requests; none if it has ended. An error if it does not say.
    pub(crate) async fn listing(&self, clock: Clock, query: &str) -> Result<Option<Value>, ElderSilent> {
        if !self.has_elder() {
            return Ok(None);
        }
        match clock.within(PATIENCE, self.claim(Claimed::Listing(query.to_owned()))).await {
            Some(Some(Word::Page(page))) => Ok(Some(page)),
            Some(None) => Ok(None),
            Some(Some(Word::Is(_))) | None => Err(ElderSilent),
        }
    }

    /// Whether a conversation is another process' by now. Asked with its turn in hand.
    pub(crate) fn is_given(&self, address: &Address) -> bool {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.all || given.conversations.contains(address)
    }

    pub(crate) fn give(&self, address: Address) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.conversations.insert(address);
        if given.conversations.len() > GIVEN_MAX {
            *given = Given { all: true, conversations: BTreeSet::new() };
        }
    }

    /// Whoever was given something has ended before it took over: all is this process' again.
    pub(crate) fn take_back(&self) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Given::default();
    }
}

/// The elder's word on a claim; of a conversation, once its turn under way has ended.
pub(crate) async fn answer(house: &House, claimed: Claimed) -> Word {
    let before = &house.memory.succession;
    Word::Is(match claimed {
        Claimed::Stream { id, tenant, own } => {
            let owner = Owner { tenant: tenant.into(), own };
            house.streams.is_running(id, &owner) || before.runs_elsewhere(id, &owner).await
        }
        Claimed::Conversation { tenant, name } => {
            if let Ok(address) = Address::new(&tenant, &name) {
                house.memory.give(address).await;
            }
            true
        }
        Claimed::CallOff { id, tenant, own } => {
            let owner = Owner { tenant: tenant.into(), own };
            match house.streams.find(id, &owner) {
                Ok(hosted) => hosted.call_off(),
                // Silence comes too late to be a word: who asked this process has waited as long.
                Err(_) => before.calls_off(house.clock, id, &owner).await.unwrap_or(false),
            }
        }
        Claimed::Cancel(id) => house.live.cancel(id) || before.cancels(house.clock, id).await,
        Claimed::Listing(query) => match listing::page(house, &query, LISTED_MAX).await {
            Ok(mut page) => {
                listing::mark(&mut page, std::process::id());
                return Word::Page(page);
            }
            // Who asks has read the query.
            Err(_) => false,
        },
    })
}

/// What a request is told that reached a process which has given its conversation away.
pub(crate) fn given(memory: &Memory, address: &Address) -> Result<(), TurnTrouble> {
    if memory.succession.is_given(address) { Err(TurnTrouble::Given) } else { Ok(()) }
}
