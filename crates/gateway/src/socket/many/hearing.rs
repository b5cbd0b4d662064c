//! What the client says on a socket of many streams.
//!
//! One frame at a time; what cannot be done is said at once, and the socket goes on. Streams that run
//! are not ended by what cannot be read.

use super::super::asking::ask;
use super::super::open::{Opened, is_welcome};
use super::{Many, Sought};
use crate::answer::{Trouble, answer};
use crate::plane::Plane;
use crate::streams::{self, Reader, StreamTrouble};
use std::borrow::Cow;
use std::sync::Arc;
use tidegate_base::StreamId;
use tidegate_journal::Cursor;
use tidegate_transport::websocket::Message;
use tidegate_wire::dialect::BadFrame;
use tidegate_wire::dialect::credit::{BadGrant, Credit};
use tidegate_wire::dialect::tidegate_v1::{ClientFrame, Create, EndReason, ServerFrame};
use tidegate_wire::websocket::CloseCode;

/// Messages in a row that cannot be read, after which the socket closes.
const UNREADABLE_MAX: u32 = 16;

impl Many {
    pub(in super::super) fn hear(&mut self, plane: &Arc<Plane>, opened: &Opened, message: Message<'_>) {
        if self.close.is_some() {
            return;
        }
        let Message::Text(text) = message else {
            self.close.get_or_insert((CloseCode::UNSUPPORTED, "tidegate.v1 is spoken in messages of text"));
            return;
        };
        match ClientFrame::read(text) {
            Ok(frame) => {
                self.unreadable = 0;
                self.obey(plane, opened, frame);
            }
            Err(BadFrame { id, text }) => {
                self.unreadable += 1;
                if self.unreadable >= UNREADABLE_MAX {
                    self.close.get_or_insert((CloseCode::POLICY, "too many messages in a row could not be read"));
                }
                // One that runs is not ended by what cannot be read.
                let runs = id.as_deref().is_some_and(|id| self.names.contains_key(id));
                let text = if runs { format!("{text} (id {})", id.as_deref().unwrap_or_default()) } else { text };
                self.refuse(id.as_deref().filter(|_| !runs), &answer(&Trouble::Frame(text)));
            }
        }
    }

    fn obey(&mut self, plane: &Arc<Plane>, opened: &Opened, frame: ClientFrame<'_>) {
        match frame {
            ClientFrame::Create(create) => {
                let created = self.create(plane, opened, &create);
                self.began(&create.id, created);
            }
            ClientFrame::Resume { id, stream, after, credit } => {
                let resumed = self.resume(plane, opened, &id, &stream, after.as_deref(), credit);
                self.began(&id, resumed);
            }
            // Of a stream that is over already, both are late and mean nothing.
            ClientFrame::Cancel { id } => {
                if let Some(at) = self.sought.iter().position(|sought| *sought.id == *id) {
                    self.sought.remove(at);
                    let id = Cow::Owned(id.to_string());
                    return self.say(&ServerFrame::End { id, seq: 0, reason: EndReason::Cancelled });
                }
                let found = self.names.get(&id).and_then(|key| Some((*key, self.streams.get_mut(key)?)));
                if let Some((key, entry)) = found {
                    entry.cancelled = true;
                    entry.reader.hosted().call_off();
                    self.turns.ready(key);
                }
            }
            ClientFrame::Credit { id, bytes } => {
                let entry = self.names.get(&id).and_then(|key| Some((*key, self.streams.get_mut(key)?)));
                let sought = self.sought.iter_mut().find(|sought| *sought.id == *id);
                let granted = match (entry, sought) {
                    (Some((key, entry)), _) => Some((Some(key), entry.credit.grant(bytes))),
                    (None, sought) => sought.map(|sought| (None, sought.credit.grant(bytes))),
                };
                let wrong = match granted {
                    None | Some((None, Ok(()))) => return,
                    Some((Some(key), Ok(()))) => return self.turns.ready(key),
                    Some((_, Err(BadGrant::NotCounted))) => "bytes: this stream was begun without credit",
                    Some((_, Err(BadGrant::TooMuch))) => "bytes: the balance would be over 1 GiB",
                };
                // The stream goes on: what is said about it is not its last frame.
                self.refuse(None, &answer(&Trouble::Credit(format!("{wrong} (id {id})"))));
            }
        }
    }

    /// Says so if a stream could not begin.
    fn began(&mut self, id: &str, begun: Result<(), Trouble>) {
        let Err(trouble) = begun else { return };
        // The stream that has the name is not touched.
        let id = if matches!(trouble, Trouble::IdInUse(_)) { None } else { Some(id) };
        self.refuse(id, &answer(&trouble));
    }

    fn create(&mut self, plane: &Arc<Plane>, opened: &Opened, create: &Create<'_>) -> Result<(), Trouble> {
        self.has_room(&create.id)?;
        let headers = create.headers();
        let reader = ask(plane, opened, create.request.as_bytes(), &headers)?;
        let resumable = headers.text("tidegate-resume").is_some_and(|word| word != "off");
        self.add(&plane.house, &create.id, reader, Credit::new(create.credit), resumable);
        Ok(())
    }

    fn resume(
        &mut self,
        plane: &Arc<Plane>,
        opened: &Opened,
        id: &str,
        stream: &str,
        after: Option<&str>,
        credit: Option<u64>,
    ) -> Result<(), Trouble> {
        self.has_room(id)?;
        let stream = StreamId::parse(stream).ok_or(StreamTrouble::Unknown)?;
        is_welcome(plane, opened)?;
        let after = after.map(|text| Cursor::parse(text).ok_or(StreamTrouble::BadCursor)).transpose()?;
        let credit = Credit::new(credit);
        match plane.house.streams.reader(stream, after.as_ref(), &opened.owner) {
            Ok(reader) => self.add(&plane.house, id, reader, credit, true),
            // The log may have it, or the process before this one.
            Err(StreamTrouble::Unknown)
                if plane.house.memory.store().is_ok() || plane.house.memory.succession.has_elder() =>
            {
                let (plane, owner) = (Arc::clone(plane), opened.owner.clone());
                let found = Box::pin(async move {
                    let hosted = streams::find(&plane.house, stream, &owner).await?;
                    Ok(Reader::at(hosted, after.as_ref())?)
                });
                self.sought.push(Sought { id: id.into(), credit, found });
            }
            Err(trouble) => return Err(trouble.into()),
        }
        Ok(())
    }
}
