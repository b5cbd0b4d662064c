//! `/v1/files`: uploads with their content, lists, and content that may be downloaded.
//!
//! The API gives back only what its tools have made. No tool runs here, so a file whose name begins
//! with `output` counts as made by one. The beta header selects the old shape of lists.

use super::multipart::parts;
use super::{Call, Given, THINGS_MAX, missing, not_allowed, paging};
use crate::envelope::Refusal;
use crate::simulator::Simulator;
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;
use tidegate_base::Moment;

/// One file, 500 MB.
const FILE_BYTES_MAX: usize = 500_000_000;
/// How long a file may be asked to be kept, seconds.
const EXPIRES: std::ops::RangeInclusive<u64> = 3_600..=7_776_000;

/// A file.
#[derive(Clone, Debug)]
pub(super) struct File {
    id: String,
    filename: String,
    mime_type: String,
    content: Bytes,
    created: Moment,
    expires: Option<Duration>,
}

impl File {
    fn is_downloadable(&self) -> bool {
        self.filename.starts_with("output")
    }

    fn is_expired(&self, now: Moment) -> bool {
        self.expires.is_some_and(|span| self.created + span <= now)
    }

    fn row(&self, wall: impl Fn(Moment) -> String, is_beta: bool) -> Value {
        let mut row = json!({
            "id": self.id, "type": "file", "filename": self.filename, "mime_type": self.mime_type,
            "size_bytes": self.content.len(), "created_at": wall(self.created), "downloadable": self.is_downloadable(),
        });
        if !is_beta {
            row["expires_at"] = json!(self.expires.map(|span| wall(self.created + span)));
        }
        row
    }
}

impl Simulator {
    pub(super) fn files(&mut self, call: &Call<'_>) -> Result<Given, Refusal> {
        match (call.facts.method, call.rest.as_slice()) {
            ("POST", []) => self.upload(call),
            ("GET" | "HEAD", []) => self.list_files(call),
            ("GET" | "HEAD", [id]) => {
                let file = self.file(call, id)?;
                Ok(file.row(|at| self.stored.wall(at), call.is_beta).into())
            }
            ("GET" | "HEAD", [id, "content"]) => {
                let file = self.file(call, id)?;
                if !file.is_downloadable() {
                    let refusal = Refusal::invalid("Only files that tools have made can be downloaded");
                    return Err(Refusal { code: Some("file_not_downloadable"), ..refusal });
                }
                Ok(Given { content_type: file.mime_type, bytes: file.content })
            }
            ("DELETE", [id]) => {
                let file = self.file(call, id)?;
                self.stored.let_go(file.content.len());
                self.stored.shelf(&call.workspace).files.retain(|kept| kept.id != file.id);
                Ok(json!({"id": file.id, "type": "file_deleted"}).into())
            }
            (_, [] | [_] | [_, "content"]) => Err(not_allowed()),
            _ => Err(Refusal::new(404, "Not Found")),
        }
    }

    fn upload(&mut self, call: &Call<'_>) -> Result<Given, Refusal> {
        let parts = parts(call.facts.header("content-type"), call.facts.body)?;
        let part = |name: &str| parts.iter().find(|part| part.name == name);
        let file = part("file").ok_or_else(|| Refusal::invalid("file: Field required"))?;
        let filename = file.filename.clone().ok_or_else(|| Refusal::invalid("file: it has no file name"))?;
        if filename.is_empty() || filename.contains(['/', '\\', '<', '>', ':', '"', '|', '?', '*']) {
            return Err(Refusal::invalid("file: the file name has characters that are not allowed"));
        }
        if file.data.len() > FILE_BYTES_MAX {
            return Err(Refusal::new(413, "Request exceeds the maximum size"));
        }
        let wrong = || Refusal::invalid("expires_in_seconds: Input should be between 3600 and 7776000");
        let expires = part("expires_in_seconds")
            .map(|part| part.text().parse().ok().filter(|s| EXPIRES.contains(s)).ok_or_else(wrong))
            .transpose()?;
        if self.stored.shelf(&call.workspace).files.len() >= THINGS_MAX {
            return Err(Refusal::invalid("too many files"));
        }
        self.stored.hold(file.data.len())?;
        let file = File {
            id: self.new_id("file"),
            filename,
            mime_type: file.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned()),
            content: Bytes::copy_from_slice(file.data),
            created: call.now,
            expires: expires.map(Duration::from_secs),
        };
        let row = file.row(|at| self.stored.wall(at), call.is_beta);
        self.stored.shelf(&call.workspace).files.push(file);
        Ok(row.into())
    }

    fn list_files(&mut self, call: &Call<'_>) -> Result<Given, Refusal> {
        let now = call.now;
        let files = self.stored.shelf(&call.workspace).files.clone();
        let rows = files.iter().rev().filter(|file| !file.is_expired(now));
        let wanted: Vec<&str> = call
            .query
            .iter()
            .filter(|(key, _)| matches!(key.as_str(), "ids" | "ids[]"))
            .map(|(_, id)| id.as_str())
            .collect();
        let rows = rows.filter(|file| wanted.is_empty() || wanted.contains(&file.id.as_str()));
        let rows: Vec<Value> = rows.map(|file| file.row(|at| self.stored.wall(at), call.is_beta)).collect();
        if call.is_beta { paging::by_ids(call, &rows) } else { paging::by_cursor(call, &rows) }
    }

    fn file(&mut self, call: &Call<'_>, id: &str) -> Result<File, Refusal> {
        let file = self.stored.shelf(&call.workspace).files.iter().find(|file| file.id == id).cloned();
        let file = file.ok_or_else(|| missing("File", id))?;
        if file.is_expired(call.now) {
            return Err(Refusal { code: Some("file_expired"), ..missing("File", id) });
        }
        Ok(file)
    }
}
