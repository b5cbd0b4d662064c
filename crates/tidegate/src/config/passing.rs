//! `[pass_through]`: what of the API is passed on as it is.

use super::ConfigError;
use super::places::Places;
use tidegate_gateway::PassThrough;

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PassThroughTable {
    enabled: Option<bool>,
    public_url: Option<String>,
}

impl PassThroughTable {
    #[cfg(test)]
    pub(super) const KEYS: &[&str] = &["enabled", "public_url"];

    /// Sets what stands in the table over `settings`.
    pub(super) fn set(self, places: &Places<'_>, settings: &mut PassThrough) -> Result<(), ConfigError> {
        settings.enabled = self.enabled.unwrap_or(settings.enabled);
        let Some(url) = self.public_url else { return Ok(()) };
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'"' | b'\\' | b'@');
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/') || !host.bytes().all(plain)) {
            let why = "is no address of ours; write for example \"https://claude.example.com\"";
            return Err(places.wrong("pass_through", 0, "public_url", why));
        }
        settings.public_url = Some(url.trim_end_matches('/').to_owned());
        Ok(())
    }
}
