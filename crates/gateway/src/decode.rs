//! Phase 3, decode: counted bytes to a request.
//!
//! The bytes of a body are leased before they are read: a declared length whole, a chunked body
//! and an inflated one step by step. What cannot be leased is refused, so a thousand uploads at
//! once cost the memory they were given and no more. The parsed request points at nothing: it is
//! a handful of facts beside the untouched bytes.

use crate::answer::Trouble;
use crate::house::House;
use bytes::{Bytes, BytesMut};
use flate2::bufread::{GzDecoder, ZlibDecoder};
use std::io::Read;
use tidegate_base::ByteLease;
use tidegate_transport::ServerStream;
use tidegate_transport::http1::HeadEnd;
use tidegate_wire::http::{Framing, RequestHead};

/// Steps in which a body of unknown length is leased, bytes.
const LEASE_STEP: u64 = 64 * 1024;

/// How reading a body ended without one.
pub(crate) enum DecodeEnd {
    /// The client has to be told.
    Trouble(Trouble),
    /// The client left.
    Left,
}

impl From<Trouble> for DecodeEnd {
    fn from(trouble: Trouble) -> Self {
        DecodeEnd::Trouble(trouble)
    }
}

/// A body and the right to hold it.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) lease: ByteLease,
}

enum Coding {
    Identity,
    Gzip,
    Deflate,
}

fn coding(head: &RequestHead) -> Result<Coding, Trouble> {
    let mut values = head.headers.get_all("content-encoding");
    let first = values.next();
    match (first.map(<[u8]>::to_ascii_lowercase).as_deref(), values.next()) {
        (None | Some(b"" | b"identity"), None) => Ok(Coding::Identity),
        (Some(b"gzip" | b"x-gzip"), None) => Ok(Coding::Gzip),
        (Some(b"deflate"), None) => Ok(Coding::Deflate),
        _ => Err(Trouble::BodyCoding),
    }
}

/// The phase.
pub(crate) async fn decode(house: &House, conn: &mut ServerStream, head: &RequestHead) -> Result<Body, DecodeEnd> {
    if let Some((bytes, lease)) = conn.take_body() {
        return Ok(Body { bytes, lease });
    }
    let limit = house.settings.limits.body_bytes;
    let coding = coding(head)?;
    let mut lease = house.bodies.empty_lease();
    let declared = match head.framing {
        Framing::Length(n) if n > limit => return Err(Trouble::BodyTooLarge { limit }.into()),
        Framing::Length(n) if !lease.resize(n) => return Err(Trouble::BodyBudget.into()),
        Framing::Length(n) => Some(n),
        _ => None,
    };
    if head.expects_continue() && !conn.body_read() && conn.send_continue().await.is_err() {
        return Err(DecodeEnd::Left);
    }
    let mut bytes = BytesMut::new();
    // A client that declares 32 MiB and sends nothing has a lease but no memory yet.
    bytes.reserve(declared.unwrap_or(0).min(LEASE_STEP * 16) as usize);
    loop {
        let read = house.clock.within(house.settings.clocks.client_body_stall, conn.read_body(&mut bytes)).await;
        match read {
            None => {
                house.metrics.clock_expired("client_body_stall");
                return Err(Trouble::BodySlow.into());
            }
            Some(Err(HeadEnd::Closed | HeadEnd::Http2 | HeadEnd::Io(_))) => return Err(DecodeEnd::Left),
            Some(Err(HeadEnd::Bad(e))) => return Err(Trouble::Head(e).into()),
            Some(Err(HeadEnd::Body(e))) => return Err(Trouble::BodyFraming(e).into()),
            Some(Ok(0)) => break,
            Some(Ok(_)) if bytes.len() as u64 > limit => return Err(Trouble::BodyTooLarge { limit }.into()),
            Some(Ok(_)) => grow(&mut lease, bytes.len() as u64)?,
        }
    }
    let bytes = match coding {
        Coding::Identity => bytes.freeze(),
        Coding::Gzip => {
            let (out, left) = inflate(bytes.len(), GzDecoder::new(&bytes[..]), limit, &mut lease)?;
            whole((out, left.into_inner()))?
        }
        Coding::Deflate => {
            let (out, left) = inflate(bytes.len(), ZlibDecoder::new(&bytes[..]), limit, &mut lease)?;
            whole((out, left.into_inner()))?
        }
    };
    // Shrinking always succeeds.
    let _ = lease.resize(bytes.len() as u64);
    Ok(Body { bytes, lease })
}

/// Makes the lease hold at least `bytes`.
fn grow(lease: &mut ByteLease, bytes: u64) -> Result<(), Trouble> {
    if bytes <= lease.held() || lease.resize(bytes.next_multiple_of(LEASE_STEP)) {
        Ok(())
    } else {
        Err(Trouble::BodyBudget)
    }
}

/// Inflates what `stream` reads from `packed` bytes, which stay leased beside what comes out until
/// it is done. The reader is given back, so that what it left unread can be seen.
fn inflate<R: Read>(packed: usize, mut stream: R, limit: u64, lease: &mut ByteLease) -> Result<(Bytes, R), Trouble> {
    let mut out = Vec::new();
    let mut step = vec![0; LEASE_STEP as usize];
    loop {
        grow(lease, packed as u64 + out.len() as u64 + LEASE_STEP)?;
        match stream.read(&mut step) {
            Ok(0) => return Ok((out.into(), stream)),
            Ok(n) => out.extend_from_slice(&step[..n]),
            Err(_) => return Err(Trouble::BodyCorrupt),
        }
        if out.len() as u64 > limit {
            return Err(Trouble::BodyTooLarge { limit });
        }
    }
}

/// The inflated body, if the packed bytes were used to the last one.
fn whole((out, unread): (Bytes, &[u8])) -> Result<Bytes, Trouble> {
    if unread.is_empty() { Ok(out) } else { Err(Trouble::BodyCorrupt) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};
    use tidegate_base::ByteBudget;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 1000);
        Compress::new(Compression::fast(), true).compress_vec(text, &mut out, FlushCompress::Finish).unwrap();
        out
    }

    fn check(packed: &[u8], limit: u64, budget: u64) -> Result<Bytes, Trouble> {
        let mut lease = ByteBudget::new(budget).empty_lease();
        let (out, left) = inflate(packed.len(), ZlibDecoder::new(packed), limit, &mut lease)?;
        whole((out, left.into_inner()))
    }

    #[test]
    fn a_body_is_inflated_within_its_limits() {
        let text = b"{\"model\":\"m\"}".repeat(50_000);
        assert_eq!(check(&packed(&text), 1 << 20, 1 << 30).unwrap(), text);
        assert!(matches!(check(&packed(&text), 1000, 1 << 30), Err(Trouble::BodyTooLarge { limit: 1000 })));
        assert!(matches!(check(&packed(&text), 1 << 20, 1 << 16), Err(Trouble::BodyBudget)));
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = packed(&vec![0; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(check(&bomb, 1 << 20, 1 << 30), Err(Trouble::BodyTooLarge { .. })));
    }

    #[test]
    fn what_is_cut_or_has_a_tail_is_corrupt() {
        let whole = packed(b"hello");
        for bad in [&whole[..whole.len() - 2], &[&whole[..], b"x"].concat(), b"", b"not zlib"] {
            assert!(matches!(check(bad, 1 << 20, 1 << 30), Err(Trouble::BodyCorrupt)), "{bad:?}");
        }
    }
}
