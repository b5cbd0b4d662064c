//! `multipart/form-data` (RFC 7578), as far as uploads use it: parts with a name, perhaps a file name
//! and a type, and the bytes between two borders.

use crate::envelope::Refusal;
use memchr::memmem;

/// Parts of one body: a skill of that many files is none.
const PARTS_MAX: usize = 1_000;

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) name: String,
    pub(super) filename: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) data: &'a [u8],
}

impl Part<'_> {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(self.data).into_owned()
    }
}

/// The parts of a body whose `content-type` this is.
pub(super) fn parts<'a>(content_type: Option<&str>, body: &'a [u8]) -> Result<Vec<Part<'a>>, Refusal> {
    let wrong = |why: &str| Refusal::invalid(format!("The request body is not valid multipart/form-data: {why}"));
    let content_type = content_type.unwrap_or_default();
    if !content_type.starts_with("multipart/form-data") {
        return Err(wrong("content-type is another"));
    }
    let boundary = parameter(content_type, "boundary").ok_or_else(|| wrong("there is no boundary"))?;
    let border = format!("--{boundary}");
    let between = format!("\r\n{border}");
    let mut rest = body.strip_prefix(border.as_bytes()).ok_or_else(|| wrong("it does not begin with a border"))?;
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        rest = rest.strip_prefix(b"\r\n").ok_or_else(|| wrong("a border does not end its line"))?;
        let head_end = memmem::find(rest, b"\r\n\r\n").ok_or_else(|| wrong("a part has no head"))?;
        let (head, behind) = (&rest[..head_end], &rest[head_end + 4..]);
        let end = memmem::find(behind, between.as_bytes()).ok_or_else(|| wrong("a part does not end"))?;
        parts.push(part(&String::from_utf8_lossy(head), &behind[..end]).ok_or_else(|| wrong("a part has no name"))?);
        if parts.len() > PARTS_MAX {
            return Err(wrong("it has too many parts"));
        }
        rest = &behind[end + between.len()..];
    }
}

fn part<'a>(head: &str, data: &'a [u8]) -> Option<Part<'a>> {
    let line = |name: &str| {
        let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(n, _)| n.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    let disposition = line("content-disposition")?;
    Some(Part {
        name: parameter(&disposition, "name")?,
        filename: parameter(&disposition, "filename"),
        content_type: line("content-type"),
        data,
    })
}

/// A parameter of a header line, with or without quotation marks.
fn parameter(line: &str, name: &str) -> Option<String> {
    line.split(';').skip(1).find_map(|item| {
        let (key, value) = item.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_stands_between_the_borders() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a b.txt\"\r\nContent-Type: text/plain\r\n\r\nline\r\n--not\r\n--b\r\ncontent-disposition: form-data; name=x\r\n\r\n\r\n--b--\r\n";
        let parts = parts(Some("multipart/form-data; boundary=b"), body).unwrap();
        assert_eq!((parts[0].name.as_str(), parts[0].filename.as_deref()), ("file", Some("a b.txt")));
        assert_eq!((parts[0].content_type.as_deref(), parts[0].data), (Some("text/plain"), &b"line\r\n--not"[..]));
        assert_eq!((parts[1].name.as_str(), parts[1].data, parts.len()), ("x", &b""[..], 2));
    }

    #[test]
    fn what_is_none_is_refused() {
        let good = Some("multipart/form-data; boundary=b");
        for (content_type, body) in [
            (None, &b"--b--"[..]),
            (Some("multipart/form-data"), b"--b--"),
            (good, b""),
            (good, b"--b\r\nx: y\r\n\r\nz"),
            (good, b"--b\r\nx: y\r\n\r\nz\r\n--b--"),
        ] {
            assert_eq!(parts(content_type, body).unwrap_err().status, 400);
        }
    }
}
