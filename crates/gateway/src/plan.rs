//! What is going to be done with a request, decided once, before its first attempt.

use crate::answer::Trouble;
use crate::ask::ask;
use crate::classes::Classed;
use crate::decode::Body;
use crate::door::Door;
use crate::exchange::Request;
use crate::identify::Caller;
use crate::mending::Mending;
use crate::passing::Passing;
use crate::plane::Plane;
use crate::references::Home;
use tidegate_schedule::Ask;
use tidegate_wire::assemble::Assembler;
use tidegate_wire::dialect::simple::Prompt;
use tidegate_wire::http::RequestHead;
use tidegate_wire::request::MessagesRequest;

/// What is going to be done, decided once.
pub(crate) struct Plan<'a> {
    pub(crate) caller: &'a Caller,
    /// What the scheduler is asked for, the same for each attempt but for its last lines.
    pub(crate) ask: Ask,
    /// What it asks for, as far as quota is concerned.
    pub(crate) classed: Classed,
    /// Where it has to go.
    pub(crate) home: Home,
    pub(crate) request: Request<'a>,
    /// The client asked for a stream.
    pub(crate) client_streams: bool,
    pub(crate) thinks_unseen: bool,
    pub(crate) server_tools: bool,
    /// The answer belongs to a conversation's turn.
    pub(crate) keeps: bool,
    /// What makes one message of several replies, where that was asked for.
    pub(crate) mending: Option<Box<Mending>>,
    /// What the last attempt said, if it has to be known.
    pub(crate) said: Option<Assembler>,
    /// What is known of it, if it is passed on as it is.
    pub(crate) passing: Option<Box<Passing>>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(
        plane: &Plane,
        head: &'a RequestHead,
        door: &Door,
        caller: &'a Caller,
        mut body: Body,
        request: Option<&'a MessagesRequest>,
    ) -> Result<Self, Trouble> {
        let limits = &plane.house.settings.limits;
        let model = request.map_or("", |r| r.model.as_str());
        let client_streams = door.can_stream && request.is_some_and(|r| r.stream);
        // A buffered answer that may be long is streamed upstream, so that no idle connection is
        // cut under it and the clocks can tell thinking from death.
        let long = |r: &MessagesRequest| r.max_tokens.is_some_and(|n| n > limits.passthrough_tokens);
        let prompts = plane.house.settings.speaks_prompts() && caller.own.is_none();
        if prompts {
            Prompt::of_request(if door.can_stream { &body.bytes } else { b"" }).map_err(Trouble::Unsayable)?;
        }
        let assembles = door.can_stream && !client_streams && request.is_some_and(|r| prompts || long(r));
        let thinks_unseen = request.is_some_and(|r| r.thinks_unseen);
        // Looked into before anything is changed in it.
        let house = &*plane.house;
        let fast = request.is_some_and(|r| r.fast);
        let classed = house.class(door.name, model, fast);
        let seen = (client_streams || assembles) && !thinks_unseen;
        let mut ask = Ask { seen, ..ask(house, classed.class, caller, &body.bytes, request, door.can_stream) };
        let home = match (caller.own, request) {
            // What it refers to lives where its own credential leads, and its share is its own.
            (Some(hash), _) => {
                let (org, tenant) = house.admission.credential(hash);
                ask.tenant = tenant;
                Home::at(Some(org))
            }
            (None, Some(request)) => house.references.home(&body.bytes, request, caller)?,
            (None, None) => Home::at(caller.organisation),
        };
        if let Some(request) = request
            && assembles
        {
            body.bytes = request.with_stream(&body.bytes);
            if !body.lease.resize(body.bytes.len() as u64) {
                return Err(Trouble::BodyBudget);
            }
        }
        let mending = match (caller.recover, request) {
            // What nobody has seen yet is simply asked for again.
            (recover, Some(request)) if client_streams => Mending::new(recover, &body.bytes, request).map(Box::new),
            _ => None,
        };
        Ok(Plan {
            ask,
            classed,
            home,
            request: Request {
                head,
                body: door.has_body.then_some(body),
                upload: None,
                raw: false,
                streams: client_streams || assembles,
                fast,
                own_credential: caller.own.is_some(),
                model,
            },
            thinks_unseen,
            server_tools: request.is_some_and(|r| r.server_tools),
            keeps: false,
            mending,
            said: None,
            passing: None,
            client_streams,
            caller,
        })
    }

    /// Whether the answer is streamed upstream and put together for its client.
    pub(crate) fn assembles(&self) -> bool {
        self.request.streams && !self.client_streams
    }
}
