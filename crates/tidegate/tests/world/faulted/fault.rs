//! The faults that a stream meets, drawn from the simulator's whole list.

use crate::world::scene::ms;
use tidegate_base::Prng;

/// What a fault does to an answer, as far as a client may rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Nothing: the answer is whole, late at most.
    None,
    /// Nothing but the order or number of events.
    Disorder,
    /// No answer has begun: the request is sent again.
    Before,
    /// The API says that the request is wrong: that is the answer.
    Final,
    /// The answer breaks off.
    Breaks,
}

/// One fault.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    /// As scenarios write it.
    pub(crate) text: String,
    /// The part before the colon.
    pub(crate) kind: String,
    pub(crate) place: Option<String>,
    pub(crate) harm: Harm,
}

const PLACES: [&str; 9] = [
    "in-utf8",
    "in-data",
    "in-text",
    "in-text",
    "in-thinking",
    "in-tool",
    "between-tools",
    "before-delta",
    "before-stop",
];

/// A stream that stands still for longer may be given up.
const PATIENCE_MS: u64 = 40_000;

fn place(prng: &mut Prng) -> String {
    match prng.below(6) {
        0 => prng.below(4_000).to_string(),
        1 => format!("event-{}", prng.below(4)),
        2 => format!("event-{}", prng.below(40)),
        _ => (*prng.pick(&PLACES).unwrap_or(&"in-data")).to_owned(),
    }
}

impl Drawn {
    fn new(text: String, place: Option<String>, harm: Harm) -> Drawn {
        let kind = text.split(':').next().unwrap_or_default().to_owned();
        let kind = if text.ends_with(":error") { "goaway-at with an error".to_owned() } else { kind };
        Drawn { text, kind, place, harm }
    }

    /// Any fault. `sockets`: the API is reached over WebSockets, which have faults of their own.
    pub(crate) fn any(sockets: bool, prng: &mut Prng) -> Drawn {
        match prng.below(20) {
            0 | 1 => Drawn::before(prng),
            2..11 => Drawn::cut(sockets, prng),
            11 | 12 => Drawn::said(prng),
            13 | 14 => Drawn::silent(prng),
            _ => Drawn::odd(prng),
        }
    }

    fn before(prng: &mut Prng) -> Drawn {
        let status = [500, 500, 502, 503, 504, 529, 529, 429, 400, 413][prng.below(10) as usize];
        let harm = if matches!(status, 400 | 413) { Harm::Final } else { Harm::Before };
        match prng.below(4) {
            0 => Drawn::new("reset-before-head".to_owned(), None, Harm::Before),
            1 => Drawn::new("close-before-head".to_owned(), None, Harm::Before),
            _ if status == 429 => Drawn::new(format!("status:429:{}", prng.below(5)), None, harm),
            _ => Drawn::new(format!("status:{status}"), None, harm),
        }
    }

    /// The answer ends where it should not.
    pub(crate) fn cut(sockets: bool, prng: &mut Prng) -> Drawn {
        let place = place(prng);
        let text = match prng.below(if sockets { 9 } else { 8 }) {
            0 | 1 => format!("reset-at:{place}"),
            2 => format!("close-at:{place}"),
            3 => format!("half-close-at:{place}"),
            4 => format!("truncate-at:{place}"),
            5 => format!("goaway-at:{place}:error"),
            6 | 7 => format!("end-at:{place}"),
            _ => format!("close-code-at:{place}:{}", prng.pick(&[1001, 1011, 1012, 1013]).unwrap_or(&1011)),
        };
        Drawn::new(text, Some(place), Harm::Breaks)
    }

    /// The API says what is wrong, or says nonsense.
    fn said(prng: &mut Prng) -> Drawn {
        let place = place(prng);
        let kinds = ["overloaded_error", "overloaded_error", "api_error", "timeout_error", "rate_limit_error"];
        match prng.below(9) {
            0..3 => Drawn::new(format!("garbage-at:{place}"), Some(place), Harm::Breaks),
            3 => Drawn::new(format!("error-at:{place}:invalid_request_error"), Some(place), Harm::Final),
            _ => {
                let kind = prng.pick(&kinds).unwrap_or(&"api_error");
                Drawn::new(format!("error-at:{place}:{kind}"), Some(place), Harm::Breaks)
            }
        }
    }

    /// It says nothing for a while, or too long.
    fn silent(prng: &mut Prng) -> Drawn {
        let place = place(prng);
        let span = match prng.below(4) {
            0 => prng.between(PATIENCE_MS, 300_000),
            _ => prng.between(50, PATIENCE_MS),
        };
        let harm = if span <= PATIENCE_MS { Harm::None } else { Harm::Breaks };
        match prng.below(4) {
            0 | 1 => Drawn::new(format!("stall-at:{place}:{span}ms"), Some(place), harm),
            2 => Drawn::new(format!("pings-at:{place}:{span}ms"), Some(place), harm),
            // Within the time that a first byte may take.
            _ => Drawn::new(format!("slow-head:{}ms", ms(prng, 100, 25_000).as_millis()), None, Harm::None),
        }
    }

    /// It comes in an odd shape.
    fn odd(prng: &mut Prng) -> Drawn {
        let place = place(prng);
        match prng.below(12) {
            0 | 1 => Drawn::new("one-byte".to_owned(), None, Harm::None),
            2 => Drawn::new(format!("trickle:{}B", prng.between(300, 5_000)), None, Harm::None),
            3 | 4 => Drawn::new(format!("unknown-at:{place}"), Some(place), Harm::None),
            5 | 6 => Drawn::new(format!("goaway-at:{place}"), Some(place), Harm::None),
            7 | 8 => Drawn::new(format!("duplicate-at:{place}"), Some(place), Harm::Disorder),
            9 => Drawn::new(format!("swap-at:{place}"), Some(place), Harm::Disorder),
            // Larger than any event may be, or than all that is kept of a stream.
            10 if prng.chance(0.02) => {
                let size = *prng.pick(&["5MB", "18MB"]).unwrap_or(&"18MB");
                Drawn {
                    kind: "huge-at, too large".to_owned(),
                    ..Drawn::new(format!("huge-at:{place}:{size}"), Some(place), Harm::Breaks)
                }
            }
            _ => Drawn::new(format!("huge-at:{place}:{}KB", prng.between(1, 60)), Some(place), Harm::None),
        }
    }
}
