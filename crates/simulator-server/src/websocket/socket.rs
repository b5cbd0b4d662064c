//! The socket: messages in, answers out, in one task.
//!
//! Whatever is there to be read is read before the next step of an answer is played, so a cancel or a
//! ping never waits for a fast answer to end.

use super::Dialect;
use super::hear::{Create, Heard, hear};
use super::live::{Live, Out};
use super::say::{Voice, refusal};
use crate::connection::Stage;
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_simulator::{BODY_BYTES_MAX, RequestFacts};
use tidegate_transport::BoxIo;
use tidegate_wire::websocket::{
    CloseCode, Event, MessageReader, Opcode, ReadRules, Role, frame_head, write_close, write_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// As often as the format says.
const PING_EVERY: Duration = Duration::from_secs(15);
/// From our close frame to the client's.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// A client that does not see that our half has ended has it for so long.
const HALF_OPEN_MAX: Duration = Duration::from_secs(300);
/// Streams of one socket: as many as a load of ten thousand puts on ten of them.
const STREAMS_MAX: usize = 1_000;
/// Prompts that wait in the simple dialect, as the format says.
const PROMPTS_MAX: usize = 16;
/// Messages in a row that cannot be read, as the format says.
const BAD_MAX: u32 = 16;

/// What the handshake found.
pub(super) struct Opened {
    pub(super) read: BytesMut,
    pub(super) dialect: Dialect,
    pub(super) headers: Vec<(String, String)>,
}

/// How it goes on, or ends.
type Flow = ControlFlow<End>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client left.
    Left,
    /// The client said so first.
    Goodbye,
    /// With this close frame.
    Code(CloseCode),
    /// Without one.
    Close,
    HalfClose,
    Truncate,
    Reset,
}

/// What the client said, kept while what it was read from is used on.
enum Told {
    Text(String),
    Ping(Vec<u8>),
}

struct Socket<'a> {
    io: BoxIo,
    opened: Opened,
    stage: &'a Stage,
    reader: MessageReader,
    /// Streams by the client's name; the simple dialect's has none.
    live: Vec<(Option<String>, Live)>,
    waiting: VecDeque<Box<Create>>,
    bad_in_a_row: u32,
    /// Answers no pings any more.
    mute: bool,
    ping_due: Moment,
}

pub(super) async fn serve(io: BoxIo, opened: Opened, stage: &Stage) {
    let message_bytes_max = BODY_BYTES_MAX + 64 * 1024;
    let rules = ReadRules { role: Role::Server, frame_bytes_max: message_bytes_max, message_bytes_max };
    let mut socket = Socket {
        io,
        opened,
        stage,
        reader: MessageReader::new(rules),
        live: Vec::new(),
        waiting: VecDeque::new(),
        bad_in_a_row: 0,
        mute: false,
        ping_due: stage.clock.now() + PING_EVERY,
    };
    let end = socket.run().await.unwrap_or(End::Left);
    socket.end(end).await;
}

impl Socket<'_> {
    async fn run(&mut self) -> io::Result<End> {
        loop {
            if let ControlFlow::Break(end) = self.hear_all().await? {
                return Ok(end);
            }
            let clock = self.stage.clock;
            let next = self.live.iter().enumerate().filter_map(|(n, (_, live))| Some((live.due()?, n))).min();
            let due = next.map_or(self.ping_due, |(due, _)| due.min(self.ping_due));
            let read = tokio::select! {
                biased;
                read = self.io.read_buf(&mut self.opened.read) => Some(read?),
                () = clock.sleep_until(due) => None,
            };
            match read {
                Some(0) => return Ok(End::Left),
                Some(_) => continue,
                None => {}
            }
            if self.ping_due <= clock.now() {
                self.ping_due = clock.now() + PING_EVERY;
                self.write(Opcode::Ping, b"").await?;
            } else if let Some((_, n)) = next
                && let ControlFlow::Break(end) = self.advance(n).await?
            {
                return Ok(end);
            }
        }
    }

    /// Everything that has been read.
    async fn hear_all(&mut self) -> io::Result<Flow> {
        while !self.opened.read.is_empty() {
            let step = match self.reader.step(&mut self.opened.read) {
                Ok(step) => step,
                Err(violation) => return Ok(ControlFlow::Break(End::Code(violation.close_code()))),
            };
            let used = step.used;
            let told = match step.event {
                Some(Event::Text(text)) => Some(Told::Text(text.into_owned())),
                Some(Event::Ping(bytes)) => Some(Told::Ping(bytes.into_owned())),
                Some(Event::Binary(_)) => return Ok(ControlFlow::Break(End::Code(CloseCode::UNSUPPORTED))),
                Some(Event::Close(_)) => return Ok(ControlFlow::Break(End::Goodbye)),
                Some(Event::Pong(_)) | None => None,
            };
            self.opened.read.advance(used);
            let flow = match told {
                Some(Told::Text(text)) => self.heard(&text).await?,
                Some(Told::Ping(bytes)) if !self.mute => {
                    self.write(Opcode::Pong, &bytes).await?;
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Continue(()),
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn heard(&mut self, text: &str) -> io::Result<Flow> {
        let heard = hear(text, self.opened.dialect);
        if let Heard::Bad(why) = heard {
            self.bad_in_a_row += 1;
            if self.bad_in_a_row >= BAD_MAX {
                return Ok(ControlFlow::Break(End::Code(CloseCode::POLICY)));
            }
            return self.refuse(None, 400, "invalid_frame", why).await;
        }
        self.bad_in_a_row = 0;
        match heard {
            Heard::Create(create) => self.create(create).await,
            Heard::Cancel(id) => self.cancel(&id).await,
            Heard::Resume(id) => {
                self.refuse(Some(&id), 404, "unknown_stream", "the simulator keeps no stream to go on with").await
            }
            Heard::Credit(id, bytes) => {
                let live = self.live.iter_mut().find(|(known, _)| known.as_ref() == Some(&id));
                match live.is_none_or(|(_, live)| live.add_credit(bytes)) {
                    true => Ok(ControlFlow::Continue(())),
                    false => self.refuse(None, 400, "invalid_credit", "the stream counts no credit").await,
                }
            }
            Heard::Bad(_) => Ok(ControlFlow::Continue(())),
        }
    }

    async fn create(&mut self, create: Box<Create>) -> io::Result<Flow> {
        match self.opened.dialect {
            Dialect::Streams if self.live.iter().any(|(id, _)| *id == create.id) => {
                self.refuse(None, 409, "stream_id_in_use", "a stream of this id is not over").await
            }
            Dialect::Streams if self.live.len() >= STREAMS_MAX => {
                self.refuse(create.id.as_deref(), 529, "too_many_streams", "too many streams on this socket").await
            }
            Dialect::Simple { .. } if self.waiting.len() >= PROMPTS_MAX => {
                self.refuse(None, 529, "queue_full", "too many prompts wait").await
            }
            Dialect::Simple { .. } if !self.live.is_empty() => {
                self.waiting.push_back(create);
                Ok(ControlFlow::Continue(()))
            }
            _ => {
                self.begin(*create);
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn begin(&mut self, create: Create) {
        let now = self.stage.clock.now();
        let own = |name: &str| create.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let passed = ["x-api-key", "authorization", "simulate"];
        let of_socket = self.opened.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let of_socket = of_socket.filter(|(name, _)| passed.iter().any(|p| p.eq_ignore_ascii_case(name)) && !own(name));
        let of_stream = create.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<(&str, &str)> = of_socket.chain(of_stream).collect();
        let body = create.body.to_string();
        let facts = RequestFacts { method: "POST", target: "/v1/messages", headers: &headers, body: body.as_bytes() };
        let exchange = self.stage.simulator.with(|simulator| simulator.begin(now, &facts));
        self.mute |= exchange.no_pong;
        let voice = Voice::new(self.opened.dialect, create.id.clone());
        self.live.push((create.id, Live::new(exchange, voice, create.credit, now)));
    }

    async fn cancel(&mut self, id: &str) -> io::Result<Flow> {
        let Some(n) = self.live.iter().position(|(known, _)| known.as_deref() == Some(id)) else {
            return Ok(ControlFlow::Continue(()));
        };
        let (_, live) = self.live.remove(n);
        self.settle(&live, true);
        self.write(Opcode::Text, live.cancelled().text.as_bytes()).await?;
        Ok(ControlFlow::Continue(()))
    }

    async fn refuse(&mut self, id: Option<&str>, status: u16, code: &str, text: &str) -> io::Result<Flow> {
        let message = refusal(self.opened.dialect, id, status, code, text);
        self.write(Opcode::Text, message.as_bytes()).await?;
        Ok(ControlFlow::Continue(()))
    }

    /// The next step of an answer.
    async fn advance(&mut self, n: usize) -> io::Result<Flow> {
        let now = self.stage.clock.now();
        let live = &mut self.live[n].1;
        let one_byte = live.exchange.one_byte_packets;
        for out in live.advance(&self.stage.simulator, now) {
            let end = match out {
                Out::Say(said) => {
                    self.send(said.text.as_bytes(), one_byte).await?;
                    if said.last {
                        return Ok(self.over(n));
                    }
                    continue;
                }
                Out::Torn(text) => {
                    // A head that promises more than comes.
                    let mut frame = BytesMut::new();
                    frame_head(&mut frame, Opcode::Text, true, text.len() * 2 + 1, None);
                    frame.extend_from_slice(text.as_bytes());
                    self.io.write_all(&frame).await?;
                    continue;
                }
                Out::CloseCode(code) => End::Code(CloseCode::new(code).unwrap_or(CloseCode::INTERNAL)),
                Out::Close => End::Close,
                Out::HalfClose => End::HalfClose,
                Out::Truncate => End::Truncate,
                Out::Reset => End::Reset,
            };
            return Ok(ControlFlow::Break(end));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// An answer is over; in the simple dialect the next prompt begins.
    fn over(&mut self, n: usize) -> Flow {
        let (_, live) = self.live.remove(n);
        self.settle(&live, false);
        if self.opened.dialect == (Dialect::Simple { once: true }) {
            return ControlFlow::Break(End::Code(CloseCode::NORMAL));
        }
        if let Some(create) = self.waiting.pop_front() {
            self.begin(*create);
        }
        ControlFlow::Continue(())
    }

    fn settle(&self, live: &Live, left: bool) {
        let (now, ordinal, progress) = (self.stage.clock.now(), live.exchange.ordinal, live.sent);
        self.stage.simulator.with(|simulator| {
            if left {
                simulator.client_left(now, ordinal);
            }
            simulator.ended(now, ordinal, progress);
        });
    }

    async fn write(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let mut frame = BytesMut::new();
        write_frame(&mut frame, opcode, true, None, payload);
        self.io.write_all(&frame).await?;
        self.io.flush().await
    }

    async fn send(&mut self, text: &[u8], one_byte: bool) -> io::Result<()> {
        if !one_byte {
            return self.write(Opcode::Text, text).await;
        }
        let mut frame = BytesMut::new();
        write_frame(&mut frame, Opcode::Text, true, None, text);
        for byte in &frame {
            self.io.write_all(std::slice::from_ref(byte)).await?;
            self.io.flush().await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Ends the socket, and with it all answers.
    async fn end(mut self, end: End) {
        for (_, live) in std::mem::take(&mut self.live) {
            self.settle(&live, matches!(end, End::Left | End::Goodbye));
        }
        let clock = self.stage.clock;
        match end {
            End::Left | End::Truncate => {}
            End::Reset => self.io.reset_on_drop(),
            End::Close => {
                let _ = clock.within(CLOSE_MAX, self.io.shutdown()).await;
            }
            End::HalfClose => {
                let _ = clock.within(HALF_OPEN_MAX, self.read_out()).await;
            }
            End::Goodbye => self.close(CloseCode::NORMAL).await,
            End::Code(code) => self.close(code).await,
        }
    }

    async fn close(&mut self, code: CloseCode) {
        let mut frame = BytesMut::new();
        write_close(&mut frame, Some((code, "")), None);
        if self.io.write_all(&frame).await.is_ok() {
            let _ = self.stage.clock.within(CLOSE_MAX, self.read_out()).await;
        }
    }

    /// Ends what we say, and throws away what the client says until it ends too.
    async fn read_out(&mut self) -> io::Result<()> {
        self.io.shutdown().await?;
        let mut thrown_away = [0; 1024];
        while self.io.read(&mut thrown_away).await? > 0 {}
        Ok(())
    }
}
