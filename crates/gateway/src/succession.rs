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

use crate::house::House;
use crate::memory::{Memory, TurnTrouble};
use crate::streams::Owner;
use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};
use tidegate_base::StreamId;
use tidegate_store::Address;
use tokio::sync::{mpsc, oneshot};

/// Conversations that are given one by one; past them all are given. Each takes some hundred bytes.
const GIVEN_MAX: usize = 262_144;

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
}

/// A claim, and whom to tell. Nobody answering means that the elder is gone.
#[derive(Debug)]
pub struct Claim {
    /// What is claimed.
    pub what: Claimed,
    /// The elder's word.
    pub answer: oneshot::Sender<bool>,
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

    async fn claim(&self, what: Claimed) -> Option<bool> {
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
        self.claim(Claimed::Stream { id, tenant, own: owner.own }).await == Some(true)
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
pub(crate) async fn answer(house: &House, claimed: Claimed) -> bool {
    match claimed {
        Claimed::Stream { id, tenant, own } => {
            let owner = Owner { tenant: tenant.into(), own };
            house.streams.is_running(id, &owner) || house.memory.succession.runs_elsewhere(id, &owner).await
        }
        Claimed::Conversation { tenant, name } => {
            if let Ok(address) = Address::new(&tenant, &name) {
                house.memory.give(address).await;
            }
            true
        }
    }
}

/// What a request is told that reached a process which has given its conversation away.
pub(crate) fn given(memory: &Memory, address: &Address) -> Result<(), TurnTrouble> {
    if memory.succession.is_given(address) { Err(TurnTrouble::Given) } else { Ok(()) }
}
