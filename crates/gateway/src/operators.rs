//! What an operator asks of the process by the admin door, and whoever runs the gateway has to do.
//!
//! The gateway knows no files and no other process, so it only carries the wish there and the answer
//! back. Nobody may be there (tests, an embedded gateway); then that is the answer.

use crate::gateway::Gateway;
use serde_json::{Value, json};
use std::sync::OnceLock;
use tidegate_wire::error::{ErrorBody, ErrorType};
use tokio::sync::{mpsc, oneshot};

/// Wishes on their way. Each is worked on before the next.
const WISHES_MAX: usize = 16;

/// What is wanted of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Read the configuration anew.
    Reload,
    /// Start a process that takes over.
    Upgrade,
}

/// A wish, and whom to tell.
#[derive(Debug)]
pub struct Wish {
    /// What is wanted.
    pub wanted: Wanted,
    /// Where the answer goes; who asked may have left.
    pub answer: oneshot::Sender<Said>,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It was done; what there is to tell.
    Done(Value),
    /// It was not, with the error's code and why.
    Refused(&'static str, String),
}

/// The way to whoever runs the gateway.
#[derive(Debug, Default)]
pub(crate) struct Wishes(OnceLock<mpsc::Sender<Wish>>);

impl Gateway {
    /// What operators wish from now on. One asks once; who asks again hears nothing.
    pub fn wishes(&self) -> mpsc::Receiver<Wish> {
        let (send, receive) = mpsc::channel(WISHES_MAX);
        let _ = self.wishes.0.set(send);
        receive
    }

    /// Carries a wish there, and its answer back: status and body.
    pub(crate) async fn wish(&self, wanted: Wanted) -> (u16, Vec<u8>) {
        let (answer, said) = oneshot::channel();
        let sent = match self.wishes.0.get() {
            Some(wishes) => wishes.try_send(Wish { wanted, answer }).is_ok(),
            None => false,
        };
        let said = if sent { said.await.ok() } else { None };
        match said {
            Some(Said::Done(told)) => (200, format!("{told}\n").into_bytes()),
            Some(Said::Refused(code, why)) => {
                (409, ErrorBody::new(ErrorType::InvalidRequest, code, why).envelope(None))
            }
            None => {
                let why = "nobody here does that now: the process is going down, or is not run by `tidegate serve`";
                (409, ErrorBody::new(ErrorType::InvalidRequest, "not_now", why).envelope(None))
            }
        }
    }
}

impl Said {
    /// As one object, for who is not asked over HTTP.
    pub fn told(&self) -> Value {
        match self {
            Said::Done(told) => told.clone(),
            Said::Refused(code, why) => json!({"error": why, "code": code}),
        }
    }
}
