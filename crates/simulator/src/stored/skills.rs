//! `/v1/skills` and their versions. Of a skill's files its `SKILL.md` is looked for, and read as far
//! as its name and description; two skills may not have one name. The API's own skills are listed.

use super::multipart::{Part, parts};
use super::{Call, Given, THINGS_MAX, missing, not_allowed, paging};
use crate::envelope::Refusal;
use crate::simulator::Simulator;
use serde_json::{Value, json};
use tidegate_base::Moment;

/// Files of one skill together, uncompressed.
const SKILL_BYTES_MAX: usize = 30_000_000;
/// What the API brings along.
const PREBUILT: [&str; 4] = ["pptx", "xlsx", "docx", "pdf"];

#[derive(Clone, Debug)]
struct SkillVersion {
    id: String,
    name: String,
    description: String,
    bytes: usize,
    created: Moment,
}

/// A skill.
#[derive(Clone, Debug)]
pub(super) struct Skill {
    id: String,
    display_name: String,
    versions: Vec<SkillVersion>,
    created: Moment,
}

impl Skill {
    fn row(&self, wall: impl Fn(Moment) -> String, is_beta: bool) -> Value {
        let latest = self.versions.last();
        let updated = wall(latest.map_or(self.created, |version| version.created));
        let latest = latest.map(|version| &version.id);
        if is_beta {
            return json!({"id": self.id, "type": "skill", "display_title": self.display_name, "latest_version": latest,
                "source": "custom", "created_at": wall(self.created), "updated_at": updated});
        }
        json!({"id": self.id, "type": "skill", "display_name": self.display_name, "latest_version_id": latest,
            "source": {"type": "custom"}, "created_at": wall(self.created), "updated_at": updated})
    }
}

impl SkillVersion {
    fn row(&self, skill: &str, wall: impl Fn(Moment) -> String, is_beta: bool) -> Value {
        let mut row = json!({"id": self.id, "type": "skill_version", "skill_id": skill, "name": self.name,
            "description": self.description, "created_at": wall(self.created)});
        if is_beta {
            row["directory"] = json!(self.name);
            row["version"] = json!(self.id);
        }
        row
    }
}

fn prebuilt(id: &str) -> Value {
    json!({"id": id, "type": "skill", "display_name": id, "latest_version_id": "20251013",
        "source": {"type": "anthropic"}, "created_at": "2025-10-13T00:00:00Z", "updated_at": "2025-10-13T00:00:00Z"})
}

/// Name, description and size of what was uploaded.
fn read(parts: &[Part<'_>]) -> Result<(String, String, usize), Refusal> {
    let files: Vec<&Part<'_>> = parts.iter().filter(|part| part.filename.is_some()).collect();
    let bytes = files.iter().map(|file| file.data.len()).sum();
    if bytes > SKILL_BYTES_MAX {
        return Err(Refusal::new(413, "Request exceeds the maximum size"));
    }
    let is_it = |file: &&&Part<'_>| file.filename.as_deref().is_some_and(|name| name.ends_with("/SKILL.md"));
    let text = files.iter().find(is_it).map(|file| file.text());
    let text = text.ok_or_else(|| Refusal::invalid("files: there is no SKILL.md in one top directory"))?;
    let field = |name: &str| {
        let lines = text.lines().skip(1).take_while(|line| *line != "---").filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    let needed = |name: &str| field(name).ok_or_else(|| Refusal::invalid(format!("SKILL.md: {name} is required")));
    Ok((needed("name")?, needed("description")?, bytes))
}

impl Simulator {
    pub(super) fn skills(&mut self, call: &Call<'_>) -> Result<Given, Refusal> {
        let is_get = matches!(call.facts.method, "GET" | "HEAD");
        match (call.facts.method, call.rest.as_slice()) {
            ("POST", []) => self.new_skill(call),
            (_, []) if is_get => {
                let skills = self.stored.shelf(&call.workspace).skills.clone();
                let own = skills.iter().rev().map(|skill| skill.row(|at| self.stored.wall(at), call.is_beta));
                let rows: Vec<Value> = match call.asked("source") {
                    Some("custom") => own.collect(),
                    Some("anthropic") => PREBUILT.map(prebuilt).into(),
                    _ => own.chain(PREBUILT.map(prebuilt)).collect(),
                };
                paging::by_cursor(call, &rows)
            }
            (_, [id]) if is_get && PREBUILT.contains(id) => Ok(prebuilt(id).into()),
            (_, [id]) if is_get => Ok(self.skill(call, id)?.row(|at| self.stored.wall(at), call.is_beta).into()),
            ("DELETE", [id]) => {
                if !self.skill(call, id)?.versions.is_empty() {
                    return Err(Refusal::invalid("Delete the versions of this skill first"));
                }
                self.stored.shelf(&call.workspace).skills.retain(|skill| skill.id != *id);
                Ok(json!({"id": id, "type": "skill_deleted"}).into())
            }
            (_, [id, "versions", ..]) => self.versions(call, id),
            (_, [] | [_]) => Err(not_allowed()),
            _ => Err(Refusal::new(404, "Not Found")),
        }
    }

    fn skill(&mut self, call: &Call<'_>, id: &str) -> Result<Skill, Refusal> {
        let found = self.stored.shelf(&call.workspace).skills.iter().find(|skill| skill.id == id);
        found.cloned().ok_or_else(|| missing("Skill", id))
    }

    fn new_skill(&mut self, call: &Call<'_>) -> Result<Given, Refusal> {
        let parts = parts(call.facts.header("content-type"), call.facts.body)?;
        let (name, description, bytes) = read(&parts)?;
        let told = |key: &str| parts.iter().find(|part| part.name == key).map(Part::text);
        let display_name = told("display_name").or_else(|| told("display_title")).unwrap_or_else(|| name.clone());
        let skills = &self.stored.shelf(&call.workspace).skills;
        if skills.iter().any(|skill| skill.display_name == display_name) {
            let refusal = Refusal::new(409, "A skill of this name is there already");
            return Err(Refusal { code: Some("skill_name_taken"), ..refusal });
        }
        if skills.len() >= THINGS_MAX {
            return Err(Refusal::invalid("too many skills"));
        }
        self.stored.hold(bytes)?;
        let version = SkillVersion { id: self.new_id("skillver"), name, description, bytes, created: call.now };
        let id = self.new_id("skill");
        let skill = Skill { id, display_name, versions: vec![version], created: call.now };
        let row = skill.row(|at| self.stored.wall(at), call.is_beta);
        self.stored.shelf(&call.workspace).skills.push(skill);
        Ok(row.into())
    }

    /// `/v1/skills/{id}/versions` and one of them.
    fn versions(&mut self, call: &Call<'_>, id: &str) -> Result<Given, Refusal> {
        let skill = self.skill(call, id)?;
        let one = call.rest.get(2).copied();
        let found = |wanted: &str| {
            let version = skill.versions.iter().find(|version| version.id == wanted || wanted == "latest").cloned();
            version.ok_or_else(|| missing("Skill version", wanted))
        };
        match (call.facts.method, one) {
            ("GET" | "HEAD", None) => {
                let rows = skill.versions.iter().rev();
                let rows: Vec<Value> = rows.map(|v| v.row(id, |at| self.stored.wall(at), call.is_beta)).collect();
                paging::by_cursor(call, &rows)
            }
            ("GET" | "HEAD", Some(wanted)) => {
                Ok(found(wanted)?.row(id, |at| self.stored.wall(at), call.is_beta).into())
            }
            ("POST", None) => {
                let (name, description, bytes) = read(&parts(call.facts.header("content-type"), call.facts.body)?)?;
                self.stored.hold(bytes)?;
                let version = SkillVersion { id: self.new_id("skillver"), name, description, bytes, created: call.now };
                let row = version.row(id, |at| self.stored.wall(at), call.is_beta);
                let skills = &mut self.stored.shelf(&call.workspace).skills;
                skills.iter_mut().filter(|skill| skill.id == id).for_each(|skill| skill.versions.push(version.clone()));
                Ok(row.into())
            }
            ("DELETE", Some(wanted)) => {
                let version = found(wanted)?;
                self.stored.let_go(version.bytes);
                let skills = &mut self.stored.shelf(&call.workspace).skills;
                let skills = skills.iter_mut().filter(|skill| skill.id == id);
                skills.for_each(|skill| skill.versions.retain(|kept| kept.id != version.id));
                Ok(json!({"id": version.id, "type": "skill_version_deleted"}).into())
            }
            _ => Err(not_allowed()),
        }
    }
}
