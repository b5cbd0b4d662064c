//! Frames on their way out.
//!
//! A server's frame is a head of two to ten bytes before the payload, so one that goes to many
//! sockets is encoded once and shared. A client's frame is masked with a key of its own; where that
//! comes from is the caller's affair: unpredictable wherever the payload may be somebody else's
//! script's (RFC 6455 section 10.3).

use super::{CONTROL_BYTES_MAX, CloseCode, FRAME_HEAD_BYTES_MAX, Opcode, mask};
use bytes::{BufMut, Bytes, BytesMut};

/// Writes a frame's head; the payload of `length` bytes follows it, masked if there is a key.
pub fn frame_head(out: &mut BytesMut, opcode: Opcode, fin: bool, length: usize, key: Option<[u8; 4]>) {
    out.put_u8(opcode.bits() | if fin { 0x80 } else { 0 });
    let masked = if key.is_some() { 0x80 } else { 0 };
    match length {
        0..126 => out.put_u8(masked | length as u8),
        126..65536 => {
            out.put_u8(masked | 126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(length as u64);
        }
    }
    if let Some(key) = key {
        out.put_slice(&key);
    }
}

/// Writes a frame: bare without a key (a server's), masked with one (a client's). No peer takes
/// a control frame in fragments or with more than [`CONTROL_BYTES_MAX`] bytes.
pub fn write_frame(out: &mut BytesMut, opcode: Opcode, fin: bool, key: Option<[u8; 4]>, payload: &[u8]) {
    out.reserve(FRAME_HEAD_BYTES_MAX + payload.len());
    frame_head(out, opcode, fin, payload.len(), key);
    let at = out.len();
    out.put_slice(payload);
    if let Some(key) = key {
        mask(&mut out[at..], key, 0);
    }
}

/// A server's whole message as one frame, for any number of sockets.
pub fn shared_frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(FRAME_HEAD_BYTES_MAX + payload.len());
    write_frame(&mut out, opcode, true, None, payload);
    out.freeze()
}

/// Writes a close frame. A reason that is too long for one is cut between two characters.
pub fn write_close(out: &mut BytesMut, why: Option<(CloseCode, &str)>, key: Option<[u8; 4]>) {
    let mut payload = Vec::with_capacity(CONTROL_BYTES_MAX);
    if let Some((code, reason)) = why {
        payload.extend_from_slice(&code.number().to_be_bytes());
        let end = reason.floor_char_boundary(CONTROL_BYTES_MAX - 2);
        payload.extend_from_slice(&reason.as_bytes()[..end]);
    }
    write_frame(out, Opcode::Close, true, key, &payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::{Event, MessageReader, ReadRules, Role};

    const RULES: ReadRules = ReadRules { role: Role::Client, frame_bytes_max: 1 << 20, message_bytes_max: 1 << 20 };

    #[test]
    fn the_examples_of_the_rfc_are_written() {
        assert_eq!(&shared_frame(Opcode::Text, b"Hello")[..], b"\x81\x05Hello");
        let mut out = BytesMut::new();
        write_frame(&mut out, Opcode::Text, true, Some([0x37, 0xfa, 0x21, 0x3d]), b"Hello");
        assert_eq!(&out[..], b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        assert_eq!(&shared_frame(Opcode::Binary, &[7; 256])[..4], b"\x82\x7e\x01\x00");
        assert_eq!(&shared_frame(Opcode::Binary, &[7; 65536])[..10], b"\x82\x7f\0\0\0\0\0\x01\0\0");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = BytesMut::new();
        write_close(&mut out, Some((CloseCode::INTERNAL, &"é".repeat(100))), None);
        let mut reader = MessageReader::new(RULES);
        let Some(Event::Close(Some((code, reason)))) = reader.step(&mut out).unwrap().event else { panic!("no close") };
        assert_eq!((code, reason.chars().count()), (CloseCode::INTERNAL, 61));
        out.clear();
        write_close(&mut out, None, None);
        assert_eq!(&out[..], b"\x88\x00");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(text in ".{0,80}", times in 1usize..40, key: Option<[u8; 4]>) {
            let text = text.repeat(times);
            let mut out = BytesMut::new();
            write_frame(&mut out, Opcode::Text, true, key, text.as_bytes());
            let role = if key.is_some() { Role::Server } else { Role::Client };
            let len = out.len();
            let mut reader = MessageReader::new(ReadRules { role, ..RULES });
            let step = reader.step(&mut out).unwrap();
            proptest::prop_assert_eq!(step.used, len);
            proptest::prop_assert_eq!(step.event, Some(Event::Text(text.as_str().into())));
        }
    }
}
