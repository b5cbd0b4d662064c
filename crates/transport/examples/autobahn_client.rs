//! Our client's side of a WebSocket before Autobahn's fuzzing server: walks all of its cases, sends
//! back what comes, and asks for the report. `cargo xtask autobahn` runs it.
//!
//! ```text
//!   /getCaseCount ─▶ N     /runCase?case=1..N&agent=tidegate ─▶ echo     /updateReports?agent=tidegate
//! ```
#![allow(clippy::print_stdout, reason = "a command-line tool speaks on its standard output")]

use std::error::Error;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::websocket::{Message, Opening, Over, Socket, SocketRules, open};
use tidegate_transport::{Clock, Dial, DialClocks, HttpOffer, Target, TcpDial, TlsRoots};
use tidegate_wire::websocket::{ReadRules, Role};

/// The suite's largest message is 16 MiB.
const MESSAGE_BYTES_MAX: usize = 17 << 20;
/// The suite's longest case waits 10 s; a busy machine takes its time over the large ones.
const CASE_MAX: Duration = Duration::from_secs(120);
/// Cases of the whole suite, and room for more.
const CASES_MAX: u32 = 2_000;
const AGENT: &str = "tidegate";

struct Client {
    clock: Clock,
    dial: TcpDial,
    target: Target,
    prng: Prng,
}

impl Client {
    /// One connection, to its end: what was said on it last. With `echo`, all of it is sent back.
    async fn visit(&mut self, path: &str, echo: bool) -> Result<(String, Over), Box<dyn Error>> {
        let dialled = self.dial.dial(&self.target).await?;
        let read =
            ReadRules { role: Role::Client, frame_bytes_max: MESSAGE_BYTES_MAX, message_bytes_max: MESSAGE_BYTES_MAX };
        // Pings of ours would be frames that the suite does not expect.
        let rules = SocketRules { read, ping: 2 * CASE_MAX, close: Duration::from_secs(5) };
        let host = format!("{}:{}", self.target.host, self.target.port);
        let asked = Opening { host: &host, target: path, subprotocols: &[], lines: &[] };
        let prng = self.prng.fork(path);
        let mut socket = open(dialled.io, &asked, rules, self.clock, prng).await?;
        let mut last = String::new();
        let over = poll_fn(|cx| poll(&mut socket, cx, echo, &mut last)).await;
        socket.end(&over).await;
        Ok((last, over))
    }
}

fn poll(socket: &mut Socket, cx: &mut std::task::Context<'_>, echo: bool, last: &mut String) -> Poll<Over> {
    loop {
        let mut heard = Vec::new();
        let over = socket.poll(cx, true, Moment::NEVER, &mut |message| match message {
            Message::Text(text) => heard.push((true, text.as_bytes().to_vec())),
            Message::Binary(bytes) => heard.push((false, bytes.to_vec())),
        });
        let nothing = heard.is_empty();
        for (is_text, bytes) in heard {
            match (echo, is_text) {
                (true, true) => socket.send(&bytes),
                (true, false) => socket.send_binary(&bytes),
                (false, _) => *last = String::from_utf8_lossy(&bytes).into_owned(),
            }
        }
        if nothing || over.is_ready() {
            return over;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("say where the fuzzing server listens: HOST:PORT")?;
    let (host, port) = address.rsplit_once(':').ok_or("an address is HOST:PORT")?;
    let clock = Clock::real();
    let target = Target { host: host.to_owned(), port: port.parse()?, tls: false, http: HttpOffer::Http1, proxy: None };
    let dial = TcpDial::new(clock, DialClocks::default(), &TlsRoots::Machine)?;
    let mut client = Client { clock, dial, target, prng: Prng::new(1) };
    let (count, over) = client.visit("/getCaseCount", false).await?;
    let count: u32 = count.parse().map_err(|_| format!("no count of cases: `{count}`, {over:?}"))?;
    for case in 1..=count.min(CASES_MAX) {
        let path = format!("/runCase?case={case}&agent={AGENT}");
        if clock.within(CASE_MAX, client.visit(&path, true)).await.transpose()?.is_none() {
            println!("case {case} did not end within {} s", CASE_MAX.as_secs());
        }
    }
    client.visit(&format!("/updateReports?agent={AGENT}"), false).await?;
    println!("{count} cases");
    Ok(())
}
