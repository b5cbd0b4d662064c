//! Which strings of a request a model gets, and which are the API's own.
//!
//! What is not known is text: a field that is newer than this table is looked into, and masked where
//! it holds something, so that nothing leaves because it was new. Left alone are the API's own words
//! (types, roles, ids), what only the API reads (signatures, encrypted content), and what only the
//! caller's credentials mean. Inside a tool's input and in metadata everything is text, keys too.

use crate::json::{self, Zone};

/// A place of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The body itself.
    Body,
    /// A batch's list of requests, and one of them.
    Requests,
    Request,
    Messages,
    Message,
    /// A string of text, or a list of blocks.
    Blocks,
    Block,
    /// Where an image or a document comes from, and where it is text.
    Source,
    TextSource,
    Tools,
    Tool,
    /// A tool's JSON schema.
    Schema,
    /// Names of a schema's properties, with their schemas.
    Properties,
    /// Text, however deep, keys included.
    Text,
    /// A value of a schema: text, though its keys are not the client's words.
    Thinking,
    /// The API's own.
    Own,
    /// Base64, a URL, a file's id: cannot be looked into.
    Base64,
    Url,
    File,
}

/// A place, and whose values are there: of this conversation, or of all that share a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) part: Part,
    /// System prompt, tools, documents, metadata: the same in many conversations, so that they stay
    /// cached.
    pub(crate) shared: bool,
}

impl Place {
    pub(crate) const BODY: Place = Place { part: Part::Body, shared: false };
}

fn of_body(key: &[u8]) -> Part {
    match key {
        b"messages" => Part::Messages,
        b"requests" => Part::Requests,
        b"system" => Part::Blocks,
        b"tools" => Part::Tools,
        b"model"
        | b"service_tier"
        | b"speed"
        | b"thinking"
        | b"tool_choice"
        | b"cache_control"
        | b"container"
        | b"inference_geo"
        | b"context_management"
        | b"betas"
        | b"fallbacks"
        | b"fallback_credit_token"
        | b"thread"
        | b"billing_policy"
        | b"user_profile_id"
        | b"mcp_servers" => Part::Own,
        b"output_config" | b"output_format" => Part::Schema,
        _ => Part::Text,
    }
}

fn of_block(key: &[u8]) -> Part {
    match key {
        b"type" | b"id" | b"tool_use_id" | b"name" | b"cache_control" | b"signature" | b"data" | b"caller"
        | b"toolset_name" | b"media_type" | b"encrypted_content" | b"encrypted_index" | b"error_code"
        | b"transformations" | b"server_name" => Part::Own,
        b"content" => Part::Blocks,
        b"source" => Part::Source,
        b"thinking" => Part::Thinking,
        b"file_id" => Part::File,
        _ => Part::Text,
    }
}

fn of_source(key: &[u8], text: bool) -> Part {
    match key {
        b"type" | b"media_type" => Part::Own,
        // Whatever does not say that it is text.
        b"data" if !text => Part::Base64,
        b"url" => Part::Url,
        b"file_id" => Part::File,
        b"content" => Part::Blocks,
        _ => Part::Text,
    }
}

fn of_schema(key: &[u8]) -> Part {
    match key {
        b"properties" | b"$defs" | b"definitions" | b"patternProperties" | b"dependentSchemas" => Part::Properties,
        b"description" | b"title" | b"default" | b"examples" | b"example" | b"const" | b"enum" | b"$comment" => {
            Part::Text
        }
        b"type" | b"format" | b"pattern" | b"$ref" | b"$id" | b"$schema" | b"required" | b"effort" => Part::Own,
        _ => Part::Schema,
    }
}

impl Zone for Place {
    fn enter(self, object: &[u8]) -> Self {
        let is = |kind: &[u8]| json::peek(object, b"type") == Some(kind);
        match self.part {
            Part::Source if is(b"text") => Place { part: Part::TextSource, ..self },
            Part::Blocks | Part::Block if !self.shared && is(b"document") => Place { shared: true, ..self },
            _ => self,
        }
    }

    fn member(self, key: &[u8]) -> Self {
        let part = match self.part {
            Part::Body => of_body(key),
            // Whoever asked gets a custom id back; no model does.
            Part::Requests | Part::Request => match key {
                b"params" => Part::Body,
                b"custom_id" => Part::Own,
                _ => Part::Text,
            },
            Part::Messages | Part::Message => match key {
                b"role" | b"clear_at" => Part::Own,
                b"content" => Part::Blocks,
                _ => Part::Text,
            },
            Part::Blocks | Part::Block => of_block(key),
            Part::Source => of_source(key, false),
            Part::TextSource => of_source(key, true),
            Part::Tools | Part::Tool => match key {
                b"name" | b"type" | b"cache_control" | b"allowed_callers" | b"mcp_server_name" => Part::Own,
                b"input_schema" => Part::Schema,
                _ => Part::Text,
            },
            Part::Schema => of_schema(key),
            Part::Properties => Part::Schema,
            deeper => deeper,
        };
        // A user is the same in all conversations, for whoever counts or blocks them.
        let is_for_all = matches!(part, Part::Blocks | Part::Tools | Part::Schema) || key == b"metadata";
        let shared = self.shared || self.part == Part::Body && is_for_all;
        Place { part, shared }
    }

    fn element(self) -> Self {
        let part = match self.part {
            Part::Requests => Part::Request,
            Part::Messages => Part::Message,
            Part::Blocks => Part::Block,
            Part::Tools => Part::Tool,
            other => other,
        };
        Place { part, ..self }
    }

    fn is_named(self) -> bool {
        !matches!(self.part, Part::Text | Part::Thinking | Part::Properties)
    }
}
