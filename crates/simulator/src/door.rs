//! The doors: which path takes which method.

use crate::answer::No;
use crate::envelope::Refusal;

/// A door of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Root,
    Messages,
    CountTokens,
    Models,
    Model,
    /// Files, skills, batches: which methods they take is theirs.
    Stored,
}

/// The door a request knocks at, or the 404 or 405 it gets.
pub(crate) fn door(method: &str, path: &str) -> Result<Door, No> {
    let under = |door: &str| path.strip_prefix(door).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if under("/v1/files") || under("/v1/skills") || under("/v1/messages/batches") {
        return Ok(Door::Stored);
    }
    let (door, posted) = match path {
        "/" => (Door::Root, false),
        "/v1/messages" => (Door::Messages, true),
        "/v1/messages/count_tokens" => (Door::CountTokens, true),
        "/v1/models" => (Door::Models, false),
        _ if path.strip_prefix("/v1/models/").is_some_and(|id| !id.is_empty() && !id.contains('/')) => {
            (Door::Model, false)
        }
        _ => return Err(Refusal::new(404, "Not Found").into()),
    };
    let fits = if posted { method == "POST" } else { method == "GET" || method == "HEAD" };
    if fits {
        return Ok(door);
    }
    let allow = if posted { "POST" } else { "GET, HEAD" };
    Err(No::from(Refusal::new(405, "Method Not Allowed")).with("allow", allow))
}
