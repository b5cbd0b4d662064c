//! `tidegate redact`, and the words of redaction that other commands take too.

use clap::{Args, ValueEnum};
use std::path::PathBuf;
use tidegate_redact::rules::{Policy, Style, Unscannable};

/// What is done with personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedactPolicy {
    /// It is not looked for.
    Off,
    /// It is counted and passes.
    Report,
    /// It is replaced.
    Mask,
    /// The request is refused.
    Block,
}

impl From<RedactPolicy> for Policy {
    fn from(policy: RedactPolicy) -> Self {
        match policy {
            RedactPolicy::Off => Policy::Off,
            RedactPolicy::Report => Policy::Report,
            RedactPolicy::Mask => Policy::Mask,
            RedactPolicy::Block => Policy::Block,
        }
    }
}

/// What stands in place of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedactStyle {
    /// Ten letters, the same for the same value.
    Token,
    /// The kind, such as [PHONE].
    Tag,
}

impl From<RedactStyle> for Style {
    fn from(style: RedactStyle) -> Self {
        match style {
            RedactStyle::Token => Style::Token,
            RedactStyle::Tag => Style::Tag,
        }
    }
}

/// What is done with what cannot be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedactUnscannable {
    /// It is counted and passes.
    Pass,
    /// It is refused.
    Block,
}

impl From<RedactUnscannable> for Unscannable {
    fn from(unscannable: RedactUnscannable) -> Self {
        match unscannable {
            RedactUnscannable::Pass => Unscannable::Pass,
            RedactUnscannable::Block => Unscannable::Block,
        }
    }
}

/// `tidegate redact`
#[derive(Args, Debug)]
pub struct Redact {
    /// Files, one after the other; `-`, or none, is standard input.
    pub files: Vec<PathBuf>,
    /// Tell what is found where (file, line, column, kind; never a value) and how much of each kind,
    /// in place of the text.
    #[arg(long)]
    pub report: bool,
    /// The same, and end with 1 if anything is found: for hooks and pipelines.
    #[arg(long)]
    pub check: bool,
    /// Look for these kinds only, separated by commas; `all` is every kind, names and addresses too.
    /// [default: all but names and addresses]
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    pub kinds: Vec<String>,
    /// What stands in place of a value. Tokens are the same for the same value in one run; across
    /// runs where the configuration has a scope_key.
    #[arg(long, default_value = "tag")]
    pub style: RedactStyle,
    /// Let this value through; `@example.com` lets every address there through. May come several times.
    #[arg(long, value_name = "VALUE")]
    pub allow: Vec<String>,
    /// The input is JSON: bodies of Messages requests, one after the other or one a line. Texts are
    /// masked, the JSON around them stays.
    #[arg(long)]
    pub json: bool,
    /// With --json: what is done with base64 media, URLs and file ids. [default: block]
    #[arg(long, requires = "json", value_name = "WHAT")]
    pub unscannable: Option<RedactUnscannable>,
    /// Pass each line on as soon as it is there. What a line's end breaks is then missed.
    #[arg(long, conflicts_with = "json")]
    pub line_buffered: bool,
    /// Put U+FFFD in place of bytes that are not UTF-8, instead of ending there.
    #[arg(long, conflicts_with = "json")]
    pub lossy: bool,
    /// Use the rules of this configuration file; where its policy is `off`, everything is masked.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Use the rules of this tenant of the configuration.
    #[arg(long, requires = "config", value_name = "NAME")]
    pub tenant: Option<String>,
}

/// `tidegate key reseal`
#[derive(Args, Debug)]
pub struct Reseal {
    /// The configuration with the keys: the new one first, and those that sealed until now.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The conversations, in place of the configuration's.
    #[arg(long, value_name = "FILE")]
    pub conversations: Option<PathBuf>,
}
