//! A moment of sending in ten characters, for two processes on one machine.
//!
//! Microseconds of the machine's wall clock, modulo 2^40 (twelve days), in hexadecimal: short enough
//! for the text of a small event. The span between a stamp and its reading is taken in that modulus,
//! so it is right wherever the count wraps; one that would be longer than half of it comes from a
//! clock that was set back, and is none.

use std::time::{Duration, SystemTime};

/// Length of a stamp.
pub const STAMP_BYTES: usize = 10;

const MASK: u64 = (1 << (4 * STAMP_BYTES)) - 1;

fn micros(wall: SystemTime) -> u64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // The cut keeps the low bits, which are the ones that count.
    since.as_micros() as u64 & MASK
}

/// `wall` as a stamp.
pub fn stamp(wall: SystemTime) -> [u8; STAMP_BYTES] {
    let micros = micros(wall);
    std::array::from_fn(|at| b"0123456789abcdef"[(micros >> (4 * (STAMP_BYTES - 1 - at)) & 15) as usize])
}

/// How long before `wall` the moment of `text` was; `None` if it is no stamp.
pub fn stamped_ago(text: &[u8], wall: SystemTime) -> Option<Duration> {
    if text.len() != STAMP_BYTES {
        return None;
    }
    let digit = |sum: u64, c: &u8| Some(sum << 4 | u64::from(char::from(*c).to_digit(16)?));
    let then = text.iter().try_fold(0, digit)?;
    let ago = micros(wall).wrapping_sub(then) & MASK;
    Some(if ago > MASK / 2 { Duration::ZERO } else { Duration::from_micros(ago) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
    }

    #[test]
    fn a_stamp_says_how_long_ago_it_was_across_the_wrap_too() {
        for then in [0, 1_790_000_000_123_456, MASK - 2, MASK] {
            let text = stamp(at(then));
            assert_eq!(stamped_ago(&text, at(then + 1_234)), Some(Duration::from_micros(1_234)), "{then}");
        }
    }

    #[test]
    fn a_clock_set_back_makes_no_span_and_other_text_is_no_stamp() {
        assert_eq!(stamped_ago(&stamp(at(5_000)), at(4_000)), Some(Duration::ZERO));
        assert_eq!(stamped_ago(b"tide tide ", at(0)), None);
        assert_eq!(stamped_ago(b"12345", at(0)), None);
    }
}
