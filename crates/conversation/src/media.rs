//! Images and documents inside messages: where their data stands and what they cost, without
//! decoding more than their headers.
//!
//! An image costs by pixel (width times height over 750, up to the largest size a model looks at);
//! its dimensions stand in the first bytes of PNG, GIF, WebP and JPEG. A PDF costs by page; pages are
//! counted by their objects in the first megabytes and by the page tree's `/Count`. What cannot be
//! read is taken at the most an image can cost, or by its bytes. Data that is elsewhere (a URL, a
//! file id) has no size here and gets a fixed guess. The estimates lean to the dear side: a window
//! that is too small by a page is better than one that is refused.

use crate::block::{Kind, inner_blocks, place};
use serde_json::value::RawValue;
use std::ops::Range;
use tidegate_wire::raw::RawObject;

/// Pixels that make a token.
const PIXELS_PER_TOKEN: u64 = 750;
/// The longest edge a model looks at; larger images are scaled down to it.
const EDGE_PIXELS_MAX: u64 = 2_576;
/// The most one image costs, and what one of unknown size counts for.
pub const IMAGE_TOKENS_MAX: u64 = 4_784;
/// What one page of a PDF costs: its text and its picture.
pub const PAGE_TOKENS: u64 = 3_000;
/// Pages of a document that is not here to be looked at.
const PAGES_ELSEWHERE: u64 = 10;
/// Bytes of a PDF to a token where pages cannot be counted.
const PDF_BYTES_PER_TOKEN: u64 = 10;
/// Base64 of an image that is looked at: JPEG's dimensions may stand behind a large thumbnail.
const IMAGE_SCAN_BYTES: usize = 256 << 10;
/// Base64 of a PDF that is looked at; from there on the count is extrapolated. About 10 ms.
const PDF_SCAN_BYTES: usize = 4 << 20;

/// An image or document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// [`Kind::Image`] or [`Kind::Document`].
    pub kind: Kind,
    /// Where its base64 stands in the message's bytes; empty if it is text or elsewhere.
    pub data: Range<usize>,
    /// Estimated tokens of that data.
    pub tokens: u64,
    /// Pages of a PDF, if they could be counted.
    pub pages: Option<u64>,
}

/// What is in one block: itself, or the blocks of a tool result.
pub(crate) fn find(raw: &[u8], kind: Kind, block: &RawObject<'_>, inner: Option<&RawValue>) -> Vec<Media> {
    match kind {
        Kind::Image | Kind::Document => one(raw, kind, block),
        Kind::ToolResult => inside(raw, inner),
        _ => Vec::new(),
    }
}

/// Images and documents of a list of blocks.
fn inside(raw: &[u8], list: Option<&RawValue>) -> Vec<Media> {
    let mut found = Vec::new();
    for item in list.filter(|list| list.get().starts_with('[')).map(inner_blocks).unwrap_or_default() {
        let Ok(block) = RawObject::read(item.get().as_bytes()) else { continue };
        match block.parse::<String>("type").as_deref() {
            Some("image") => found.extend(one(raw, Kind::Image, &block)),
            Some("document") => found.extend(one(raw, Kind::Document, &block)),
            _ => {}
        }
    }
    found
}

fn one(raw: &[u8], kind: Kind, block: &RawObject<'_>) -> Vec<Media> {
    let source: RawObject<'_> = block.parse("source").unwrap_or_default();
    let form: String = source.parse("type").unwrap_or_default();
    let media = |data, tokens, pages| Media { kind, data, tokens, pages };
    match (form.as_str(), source.get("data")) {
        ("base64", Some(data)) => {
            let at = place(raw, data);
            // Inside the quotes; base64 has no escapes.
            let at = if at.len() >= 2 { at.start + 1..at.end - 1 } else { at };
            let base64 = &raw[at.clone()];
            let (tokens, pages) = if kind == Kind::Image { (image_tokens(base64), None) } else { pdf(base64) };
            vec![media(at, tokens, pages)]
        }
        // Text counts as the JSON it is; pictures in it count for themselves.
        ("text", _) => vec![media(0..0, 0, None)],
        ("content", _) => {
            let mut found = vec![media(0..0, 0, None)];
            found.extend(inside(raw, source.get("content")));
            found
        }
        _ if kind == Kind::Image => vec![media(0..0, IMAGE_TOKENS_MAX, None)],
        _ => vec![media(0..0, PAGES_ELSEWHERE * PAGE_TOKENS, None)],
    }
}

fn image_tokens(base64: &[u8]) -> u64 {
    let head = decode(&base64[..base64.len().min(IMAGE_SCAN_BYTES)]);
    let Some((width, height)) = dimensions(&head) else { return IMAGE_TOKENS_MAX };
    let (width, height) = (u64::from(width), u64::from(height));
    let longest = width.max(height).max(1);
    let scaled = |edge: u64| if longest > EDGE_PIXELS_MAX { edge * EDGE_PIXELS_MAX / longest } else { edge };
    (scaled(width) * scaled(height)).div_ceil(PIXELS_PER_TOKEN).clamp(1, IMAGE_TOKENS_MAX)
}

fn decode(base64: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(base64.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u8);
    for byte in base64 {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

/// Width and height of a PNG, GIF, WebP or JPEG.
fn dimensions(head: &[u8]) -> Option<(u32, u32)> {
    let be16 = |at: usize| Some(u32::from(u16::from_be_bytes(head.get(at..at + 2)?.try_into().ok()?)));
    let le16 = |at: usize| Some(u32::from(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?)));
    let be32 = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let le24 = |at: usize| head.get(at..at + 3).map(|b| u32::from_le_bytes([b[0], b[1], b[2], 0]));
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some((be32(16)?, be32(20)?));
    }
    if head.starts_with(b"GIF8") {
        return Some((le16(6)?, le16(8)?));
    }
    if head.starts_with(b"RIFF") && head.get(8..12)? == b"WEBP" {
        return match head.get(12..16)? {
            b"VP8 " => Some((le16(26)? & 0x3fff, le16(28)? & 0x3fff)),
            b"VP8L" => {
                let bits = u32::from_le_bytes(head.get(21..25)?.try_into().ok()?);
                Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
            }
            b"VP8X" => Some((le24(24)? + 1, le24(27)? + 1)),
            _ => None,
        };
    }
    if !head.starts_with(b"\xff\xd8") {
        return None;
    }
    // JPEG: segments, each with a marker and a length, up to the one that starts a frame.
    let mut at = 2;
    loop {
        let marker = *head.get(at + 1)?;
        if head[at] != 0xff {
            return None;
        }
        match marker {
            0xff => at += 1,
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => return Some((be16(at + 7)?, be16(at + 5)?)),
            0x01 | 0xd0..=0xd8 => at += 2,
            _ => at += 2 + be16(at + 2)?.max(2) as usize,
        }
    }
}

/// Tokens and pages of a PDF.
fn pdf(base64: &[u8]) -> (u64, Option<u64>) {
    let scanned = base64.len().min(PDF_SCAN_BYTES);
    let bytes = decode(&base64[..scanned]);
    let whole = base64.len() as u64 / 4 * 3;
    let objects = memchr::memmem::find_iter(&bytes, b"/Type").filter(|at| is_page(&bytes[at + 5..])).count() as u64;
    let objects = objects * (base64.len() as u64).div_ceil(scanned.max(1) as u64);
    let tree = memchr::memmem::find_iter(&bytes, b"/Count").filter_map(|at| number(&bytes[at + 6..])).max();
    // A page takes a hundred bytes at least: a larger count is a lie or belongs to something else.
    let tree = tree.filter(|pages| *pages <= whole / 100 + 1).unwrap_or(0);
    match objects.max(tree) {
        0 => ((whole / PDF_BYTES_PER_TOKEN).max(PAGE_TOKENS), None),
        pages => (pages * PAGE_TOKENS, Some(pages)),
    }
}

/// Whether the name after `/Type` is `/Page`, and not `/Pages` or another.
fn is_page(after: &[u8]) -> bool {
    let after = after.trim_ascii_start();
    after.strip_prefix(b"/Page").is_some_and(|rest| rest.first().is_none_or(|b| !b.is_ascii_alphanumeric()))
}

fn number(after: &[u8]) -> Option<u64> {
    let after = after.trim_ascii_start();
    let end = after.iter().position(|b| !b.is_ascii_digit()).unwrap_or(after.len());
    std::str::from_utf8(&after[..end.min(9)]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(bytes: &[u8]) -> Vec<u8> {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = Vec::new();
        for chunk in bytes.chunks(3) {
            let bits = chunk.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            out.extend((0..=chunk.len()).map(|n| ALPHABET[(bits >> (18 - 6 * n) & 63) as usize]));
            out.resize(out.len().next_multiple_of(4), b'=');
        }
        out
    }

    #[test]
    fn the_four_image_formats_tell_their_size() {
        let png = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &640u32.to_be_bytes(), &480u32.to_be_bytes()].concat();
        let gif = [b"GIF89a".as_slice(), &640u16.to_le_bytes(), &480u16.to_le_bytes()].concat();
        let lossy = [b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a".as_slice(), &[0x80, 2, 0xe0, 1]].concat();
        let bits = 639u32 | 479 << 14;
        let lossless = [b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f".as_slice(), &bits.to_le_bytes()].concat();
        let extended = [b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0".as_slice(), &[0x7f, 2, 0, 0xdf, 1, 0]].concat();
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xc4\0\x02\xff\xc2\0\x0b\x08\x01\xe0\x02\x80".to_vec();
        for image in [png, gif, lossy, lossless, extended, jpeg] {
            assert_eq!(dimensions(&decode(&encode(&image))), Some((640, 480)), "{image:?}");
            assert_eq!(image_tokens(&encode(&image)), (640 * 480u64).div_ceil(750));
        }
        assert_eq!(image_tokens(b"AAAA"), IMAGE_TOKENS_MAX);
    }

    #[test]
    fn a_large_image_is_scaled_down_first() {
        let png =
            [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &51_520u32.to_be_bytes(), &1_000u32.to_be_bytes()].concat();
        assert_eq!(image_tokens(&encode(&png)), (2_576 * 50u64).div_ceil(750));
    }

    #[test]
    fn pages_are_counted_by_object_and_by_tree() {
        let objects = "<</Type /Page /Parent 1 0 R>>".repeat(7) + "<</Type/Pages/Kids[]>>";
        assert_eq!(pdf(&encode(objects.as_bytes())), (7 * PAGE_TOKENS, Some(7)));
        let tree = format!("<</Type/Pages/Count 12>>{}", " ".repeat(2_000));
        assert_eq!(pdf(&encode(tree.as_bytes())), (12 * PAGE_TOKENS, Some(12)));
        let lie = "<</Type/Pages/Count 999999999>>";
        assert_eq!(pdf(&encode(lie.as_bytes())).1, None);
        assert_eq!(pdf(&encode(&vec![b'x'; 300_000])), (30_000, None));
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(bytes: Vec<u8>, magic in 0usize..4) {
            let magic: &[u8] = [b"\xff\xd8\xff".as_slice(), b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF1234WEBPVP8"][magic];
            let _ = dimensions(&[magic, &bytes].concat());
            let _ = pdf(&bytes);
        }

        #[test]
        fn base64_decodes_to_what_it_was(bytes: Vec<u8>) {
            proptest::prop_assert_eq!(decode(&encode(&bytes)), bytes);
        }
    }
}
