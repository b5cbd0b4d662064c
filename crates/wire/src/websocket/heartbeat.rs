//! When to ping, and when to give a peer up.
//!
//! A ping goes out on the beat, whatever else is said: it also keeps the line open through what stands
//! between. Any byte of the peer is an answer to it, since a peer in the middle of a long frame cannot
//! put a pong there. A peer that has left two beats unanswered when the third is due is dead.
//!
//! What has come is to be read before the beat is asked for: after a thread was held up, the answer
//! may lie in the socket.

use std::time::Duration;
use tidegate_base::Moment;

/// So many pings in a row may stay unanswered.
const UNANSWERED_MAX: u8 = 2;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Nothing, before [`Heartbeat::due`].
    Rest,
    /// A ping.
    Ping,
    /// The peer is gone.
    Dead,
}

/// One side's beat.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    every: Duration,
    due: Moment,
    unanswered: u8,
}

impl Heartbeat {
    /// A beat whose first ping is due at `first`: sockets that were opened together are spread there.
    pub fn new(first: Moment, every: Duration) -> Self {
        Heartbeat { every, due: first, unanswered: 0 }
    }

    /// When to ask again.
    pub fn due(&self) -> Moment {
        self.due
    }

    /// Something came from the peer.
    pub fn heard(&mut self) {
        self.unanswered = 0;
    }

    /// What is due now. A ping that is told here is taken as sent.
    pub fn beat(&mut self, now: Moment) -> Beat {
        if now < self.due {
            return Beat::Rest;
        }
        if self.unanswered == UNANSWERED_MAX {
            return Beat::Dead;
        }
        self.unanswered += 1;
        let next = self.due + self.every;
        // After being held up, beats that were missed are not made up for.
        self.due = if next > now { next } else { now + self.every };
        Beat::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_silent_peer_is_dead_when_the_third_ping_would_be_due() {
        let mut beat = Heartbeat::new(at(15), EVERY);
        let told: Vec<Beat> = [14, 15, 16, 29, 30, 44, 45].map(|s| beat.beat(at(s))).to_vec();
        use Beat::{Dead, Ping, Rest};
        assert_eq!(told, [Rest, Ping, Rest, Rest, Ping, Rest, Dead]);
    }

    #[test]
    fn any_sign_of_life_begins_anew() {
        let mut beat = Heartbeat::new(at(15), EVERY);
        for ping in 1..100 {
            assert_eq!(beat.beat(at(15 * ping)), Beat::Ping, "ping {ping}");
            if ping % 2 == 0 {
                beat.heard();
            }
        }
    }

    #[test]
    fn beats_that_were_missed_are_not_made_up_for() {
        let mut beat = Heartbeat::new(at(15), EVERY);
        assert_eq!(beat.beat(at(300)), Beat::Ping);
        assert_eq!((beat.beat(at(300)), beat.due()), (Beat::Rest, at(315)));
        assert_eq!((beat.beat(at(317)), beat.due()), (Beat::Ping, at(330)), "a little late, and back on the beat");
    }
}
