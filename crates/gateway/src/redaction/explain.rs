//! What the model is told of tokens: one line at the end of the system prompt.
//!
//! It is the same for every request of a tenant whose values get tokens, whether or not this one has
//! any: a line that came with the first value would change what the prompt cache has of all before it.
//! What the client marks for the cache itself ends before it.

use bytes::Bytes;
use tidegate_wire::request::MessagesRequest;

/// The line. No character of it needs an escape in JSON.
pub(crate) const LINE: &str = "Words of ten capital letters that begin with ZQ (such as ZQPBXKRTCN) stand for \
personal data and secrets that were taken out of this conversation. The third letter says what one stands for: \
P phone, M e-mail, C or D card or account number, B IBAN, N IP address, R, S or J identity number, G company code, \
K key, X private key, W web token, Q password, T passport, L plate, H name, F address, V other. Use such a word \
exactly as it is, letter for letter, wherever you would use what it stands for, and do not comment on it.";

/// The body with the line at the end of its system prompt.
pub(super) fn explained(body: &Bytes, request: &MessagesRequest) -> Bytes {
    let at = request.parts.system.clone();
    let value = at.clone().map(|at| body[at].trim_ascii());
    let block = format!("{{\"type\":\"text\",\"text\":\"{LINE}\"}}");
    let join = |before: &[u8], new: &str, after: &[u8]| Bytes::from([before, new.as_bytes(), after].concat());
    match (at, value) {
        (Some(at), Some(text)) if text.len() >= 2 && text.ends_with(b"\"") => {
            let gap = if text.len() > 2 { "\\n\\n" } else { "" };
            let end = at.end - 1;
            join(&body[..end], &format!("{gap}{LINE}"), &body[end..])
        }
        (Some(at), Some(list)) if list.ends_with(b"]") => {
            let is_empty = list[1..list.len() - 1].trim_ascii().is_empty();
            let end = at.end - 1;
            join(&body[..end], &format!("{}{block}", if is_empty { "" } else { "," }), &body[end..])
        }
        (Some(at), Some(b"null")) => join(&body[..at.start], &format!("\"{LINE}\""), &body[at.end..]),
        // No prompt; of what is none, the API says so.
        (Some(_), _) => body.clone(),
        (None, _) => {
            let open = body.iter().position(|b| *b == b'{').map_or(0, |at| at + 1);
            join(&body[..open], &format!("\"system\":\"{LINE}\","), &body[open..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(system: &str) -> Value {
        let body = Bytes::from(format!("{{\"model\":\"m\",{system}\"messages\":[]}}"));
        let request = MessagesRequest::read(&body).unwrap();
        let explained = explained(&body, &request);
        let value: Value = serde_json::from_slice(&explained).unwrap();
        assert_eq!((&value["model"], &value["messages"]), (&json!("m"), &json!([])));
        value["system"].clone()
    }

    #[test]
    fn the_line_stands_at_the_end_of_every_kind_of_system_prompt() {
        let block = json!({"type": "text", "text": LINE});
        assert_eq!(told(""), json!(LINE));
        assert_eq!(told("\"system\": null ,"), json!(LINE));
        assert_eq!(told("\"system\":\"\","), json!(LINE));
        assert_eq!(told("\"system\":\"Be \\\"brief\\\".\" ,"), json!(format!("Be \"brief\".\n\n{LINE}")));
        assert_eq!(told("\"system\":[ ],"), json!([block]));
        let one = json!({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}});
        assert_eq!(told(&format!("\"system\": [{one}] ,")), json!([one, block]));
        assert_eq!(told("\"system\":7,"), json!(7));
    }

    #[test]
    fn every_letter_of_a_kind_is_in_it() {
        for kind in tidegate_redact::kind::Kind::ALL {
            let letter = format!(" {}", char::from(kind.letter()));
            assert!(LINE.contains(&letter), "{kind}");
        }
    }
}
