//! Phase 2, identify: a credential to a tenant, headers to priority and deadline.
//!
//! It comes before the body is read: a stranger's upload costs nothing. A key is found by
//! the first bytes of its hash, and compared whole in constant time.

use crate::answer::Trouble;
use crate::connection::Peer;
use crate::key::KeyHash;
use crate::memory::Wish;
use crate::settings::{Clocks, Settings};
use crate::streams;
use crate::tenants::{NOBODY, OWN, Tenant, Tenants};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::{Deadline, Moment};
use tidegate_schedule::{Band, OrgId};
use tidegate_wire::dialect::words::{Recover, Resume, meaning};
use tidegate_wire::http::{Headers, RequestHead};

/// A client's key.
#[derive(Debug)]
struct Known {
    hash: KeyHash,
    expires_ms: Option<u64>,
    tenant: Arc<Tenant>,
}

/// The keys that are known, by the first bytes of their hashes.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_prefix: BTreeMap<[u8; 8], Vec<Known>>,
    /// Who asks where nobody has to say who they are.
    nobody: Option<Arc<Tenant>>,
    /// Who asks with an upstream credential of their own, if they may.
    own: Option<Arc<Tenant>>,
    /// Names of organisations by number; `None` for those that are gone.
    organisations: Vec<Option<String>>,
}

impl Keys {
    pub(crate) fn new(settings: &Settings, tenants: &Tenants) -> Self {
        let mut by_prefix: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for key in &settings.keys {
            if let Some(tenant) = tenants.named(&key.tenant) {
                by_prefix.entry(key.hash.prefix()).or_default().push(Known {
                    hash: key.hash,
                    expires_ms: key.expires_ms,
                    tenant: Arc::clone(tenant),
                });
            }
        }
        let nobody =
            (settings.keys.is_empty() && !settings.keys_only).then(|| tenants.named(NOBODY).cloned()).flatten();
        let own = settings.own_credentials.as_ref().and_then(|_| tenants.named(OWN).cloned());
        let organisations = settings.organisations.iter().map(|o| o.is_open().then(|| o.name.clone())).collect();
        Keys { by_prefix, nobody, own, organisations }
    }

    /// Whose key it is, if it is still good at `wall_ms`.
    fn tenant(&self, key: &[u8], wall_ms: u64) -> Result<Arc<Tenant>, Trouble> {
        let hash = KeyHash::of(key);
        let candidates = self.by_prefix.get(&hash.prefix()).ok_or(Trouble::KeyUnknown)?;
        let found = candidates.iter().find(|known| known.hash.is(&hash)).ok_or(Trouble::KeyUnknown)?;
        if found.expires_ms.is_some_and(|at| at <= wall_ms) {
            return Err(Trouble::KeyExpired);
        }
        Ok(Arc::clone(&found.tenant))
    }

    /// Whose an upstream's own credential is, and its hash, if it may be used. A key of ours that is
    /// misspelt does not look like one.
    fn own(&self, key: &[u8]) -> Option<(Arc<Tenant>, u64)> {
        let own = self.own.as_ref().filter(|_| key.starts_with(UPSTREAMS))?;
        Some((Arc::clone(own), u64::from_be_bytes(KeyHash::of(key).prefix())))
    }
}

/// How the upstream's credentials begin.
const UPSTREAMS: &[u8] = b"sk-ant-";

/// Who asks, how urgently, and until when.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) band: Band,
    /// The organisation that has to serve it.
    pub(crate) organisation: Option<OrgId>,
    /// The hash of the upstream credential it brings.
    pub(crate) own: Option<u64>,
    /// A deadline the client set for this request; `None` leaves our own.
    pub(crate) deadline: Option<Deadline>,
    /// What it wishes of a conversation.
    pub(crate) wish: Wish,
    /// Whether its stream can be come back to.
    pub(crate) resume: Resume,
    /// What is done when the upstream breaks off inside its answer.
    pub(crate) recover: Recover,
    /// The SDK's own timeout, which is a deadline for buffered answers only.
    pub(crate) sdk_timeout: Option<Duration>,
}

/// The client's credential: `x-api-key` before `authorization: Bearer`. One that is empty is none.
fn credential(headers: &Headers) -> Option<&[u8]> {
    let (name, value) = credential_line(headers)?;
    Some(if name == "authorization" { bearer(value)? } else { value })
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The header line that the client's credential stands in, and no other: what goes up of a client's
/// own is what was looked at.
pub(crate) fn credential_line(headers: &Headers) -> Option<(&'static str, &[u8])> {
    if let Some(key) = headers.get("x-api-key").filter(|key| !key.is_empty()) {
        return Some(("x-api-key", key));
    }
    let value = headers.get("authorization").filter(|value| bearer(value).is_some_and(|token| !token.is_empty()))?;
    Some(("authorization", value))
}

/// The phase.
pub(crate) fn identify(
    keys: &Keys,
    head: &RequestHead,
    peer: &Peer,
    now: Moment,
    wall_ms: u64,
) -> Result<Caller, Trouble> {
    let headers = &head.headers;
    let key = credential(headers);
    let errand = if let Peer::Errand(tenant) = peer { Some(tenant) } else { None };
    let own = key.and_then(|k| keys.own(k));
    let own_hash = own.as_ref().map(|(_, hash)| *hash);
    let tenant = if let Some(tenant) = errand {
        Arc::clone(tenant)
    } else if let Some((tenant, _)) = own {
        tenant
    } else if let Some(nobody) = &keys.nobody {
        if !matches!(peer, Peer::Here) {
            return Err(Trouble::LoopbackOnly);
        }
        // A web page that a person on this machine looks at can post here; it has no business to.
        if headers.has("origin") {
            return Err(Trouble::Origin);
        }
        Arc::clone(nobody)
    } else {
        keys.tenant(key.ok_or(Trouble::KeyMissing)?, wall_ms)?
    };
    let (mut band, mut deadline, mut organisation, mut resume) = (tenant.band, None, None, Resume::Off);
    let (mut wish, mut recover) = (Wish::default(), Recover::Never);
    let own = |name: &[u8]| name.len() > 9 && name[..9].eq_ignore_ascii_case(b"tidegate-");
    for (name, value) in headers.iter().filter(|(name, _)| own(name)) {
        let name = std::str::from_utf8(name).unwrap_or_default();
        let value = std::str::from_utf8(value).unwrap_or_default().trim();
        let wrong = |expected| Trouble::Header { name: name.to_ascii_lowercase(), expected };
        let lower = name[9..].to_ascii_lowercase();
        if wish.read(&lower, value).map_err(wrong)? {
            continue;
        }
        match lower.as_str() {
            "priority" => {
                band = Band::of_name(value).ok_or_else(|| wrong("`interactive`, `normal` or `background`"))?
            }
            "deadline-ms" => {
                let ms: u64 = value
                    .parse()
                    .ok()
                    .filter(|ms| (1..=86_400_000).contains(ms))
                    .ok_or_else(|| wrong("a number of milliseconds from 1 to 86400000"))?;
                deadline = Some(Deadline::of_client(now + Duration::from_millis(ms)));
            }
            "organisation" if own_hash.is_some() => {
                return Err(wrong("to be left out with an upstream credential of your own"));
            }
            "organisation" => {
                let at = keys.organisations.iter().position(|name| name.as_deref() == Some(value));
                let at = at.ok_or_else(|| wrong("the name of an organisation that Tidegate is configured with"))?;
                organisation = Some(OrgId(at as u32));
            }
            "resume" => resume = streams::class(value)?,
            "recover" => {
                recover = meaning(Recover::WORDS, value).ok_or_else(|| wrong("`never`, `restart` or `continue`"))?;
            }
            _ => return Err(wrong("to be left out: no such header is known to this version")),
        }
    }
    let sdk_timeout = headers.text("x-stainless-timeout").and_then(|v| v.trim().parse::<f64>().ok());
    let sdk_timeout = sdk_timeout.filter(|s| (0.001..=86_400.0).contains(s)).map(Duration::from_secs_f64);
    Ok(Caller { tenant, band, organisation, own: own_hash, deadline, wish, resume, recover, sdk_timeout })
}

impl Caller {
    /// Somebody without a name or a wish, for tests.
    #[cfg(test)]
    pub(crate) fn anybody() -> Self {
        let tenants = Tenants::new(&Settings::default());
        let tenant = Arc::clone(tenants.named(NOBODY).expect("it is always there"));
        let wish = Wish::default();
        Caller {
            tenant,
            band: Band::default(),
            organisation: None,
            own: None,
            deadline: None,
            wish,
            resume: Resume::Off,
            recover: Recover::Never,
            sdk_timeout: None,
        }
    }

    /// When the answer is no longer wanted.
    pub(crate) fn deadline(&self, arrived: Moment, stream: bool, clocks: &Clocks) -> Deadline {
        match (self.deadline, self.sdk_timeout) {
            (Some(deadline), _) => deadline,
            (None, Some(span)) if !stream => Deadline::of_client(arrived + span),
            _ => Deadline::by_default(arrived + clocks.whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{ClientKey, Organisation};

    fn check(keys: &Keys, lines: &[(&str, &str)], here: bool) -> Result<Caller, Trouble> {
        let mut text = "POST / HTTP/1.1\r\nhost: a\r\n".to_owned();
        for (name, value) in lines {
            text += &format!("{name}: {value}\r\n");
        }
        let mut read = bytes::BytesMut::from((text + "\r\n").as_str());
        let head = tidegate_wire::http::parse_request(&mut read).unwrap().unwrap();
        identify(keys, &head, if here { &Peer::Here } else { &Peer::Elsewhere }, Moment::ZERO, 1_000)
    }

    fn keys(keys: &[ClientKey]) -> Keys {
        let settings = Settings {
            keys: keys.to_vec(),
            organisations: vec![Organisation::new("north", Vec::new()), Organisation::new("south", Vec::new())],
            ..Settings::default()
        };
        Keys::new(&settings, &Tenants::new(&settings))
    }

    fn one_key() -> Keys {
        keys(&[ClientKey { tenant: "acme".into(), hash: KeyHash::of(b"tg_secret"), expires_ms: None }])
    }

    #[test]
    fn a_key_whose_time_is_over_is_refused_by_name() {
        let until = |ms| ClientKey { tenant: "acme".into(), hash: KeyHash::of(b"tg_secret"), expires_ms: Some(ms) };
        let asked = [("x-api-key", "tg_secret")];
        assert!(check(&keys(&[until(1_001)]), &asked, false).is_ok());
        assert!(matches!(check(&keys(&[until(1_000)]), &asked, false), Err(Trouble::KeyExpired)));
    }

    #[test]
    fn where_keys_are_asked_for_nobody_is_served_without_any() {
        let settings = Settings { keys_only: true, ..Settings::default() };
        let keys = Keys::new(&settings, &Tenants::new(&settings));
        assert!(matches!(check(&keys, &[("x-api-key", "any")], true), Err(Trouble::KeyUnknown)));
        assert!(matches!(check(&keys, &[], true), Err(Trouble::KeyMissing)));
    }

    #[test]
    fn an_organisation_that_is_gone_cannot_be_asked_for() {
        let mut gone = Organisation { closed: [0].into(), ..Organisation::new("south", Vec::new()) };
        let lane =
            tidegate_upstream::Lane::new("south/1", "http://a", Default::default(), tidegate_base::Secret::new("k"));
        gone.lanes.push(Arc::new(lane.unwrap()));
        let settings = Settings { organisations: vec![gone], ..Settings::default() };
        let keys = Keys::new(&settings, &Tenants::new(&settings));
        assert!(matches!(check(&keys, &[("tidegate-organisation", "south")], true), Err(Trouble::Header { .. })));
    }

    #[test]
    fn both_credentials_are_taken_and_x_api_key_goes_first() {
        let keys = one_key();
        assert_eq!(&*check(&keys, &[("X-Api-Key", "tg_secret")], false).unwrap().tenant.name, "acme");
        assert_eq!(&*check(&keys, &[("authorization", "bearer tg_secret")], false).unwrap().tenant.name, "acme");
        let empty = [("x-api-key", ""), ("authorization", "Bearer tg_secret")];
        assert_eq!(&*check(&keys, &empty, false).unwrap().tenant.name, "acme", "what is empty is none");
        assert!(matches!(check(&keys, &[("authorization", "Bearer ")], true), Err(Trouble::KeyMissing)));
        let both = [("authorization", "Bearer other"), ("x-api-key", "tg_secret")];
        assert_eq!(&*check(&keys, &both, false).unwrap().tenant.name, "acme");
        assert!(matches!(check(&keys, &[("x-api-key", "tg_secre")], false), Err(Trouble::KeyUnknown)));
        assert!(matches!(check(&keys, &[("authorization", "Basic eA==")], true), Err(Trouble::KeyMissing)));
        assert!(matches!(check(&keys, &[], true), Err(Trouble::KeyMissing)));
    }

    #[test]
    fn without_keys_only_this_machine_is_served() {
        assert_eq!(&*check(&keys(&[]), &[], true).unwrap().tenant.name, "default");
        assert!(matches!(check(&keys(&[]), &[("x-api-key", "x")], false), Err(Trouble::LoopbackOnly)));
        assert!(matches!(check(&keys(&[]), &[("Origin", "https://evil.example")], true), Err(Trouble::Origin)));
        let key = [("origin", "https://app.example"), ("x-api-key", "tg_secret")];
        assert!(check(&one_key(), &key, false).is_ok());
    }

    #[test]
    fn our_own_headers_are_read_or_refused_but_never_ignored() {
        let open = keys(&[]);
        let c = check(&open, &[("tidegate-priority", "interactive"), ("Tidegate-Deadline-Ms", "1500")], true).unwrap();
        assert_eq!((c.band, c.deadline.unwrap().at()), (Band::Interactive, Moment::from_nanos(1_500_000_000)));
        let c = check(&open, &[("tidegate-organisation", "south")], true).unwrap();
        assert_eq!(c.organisation, Some(OrgId(1)));
        for (name, value) in [
            ("tidegate-priority", "high"),
            ("tidegate-deadline-ms", "0"),
            ("tidegate-resume", "yes"),
            ("tidegate-organisation", "east"),
            ("tidegate-typo", "1"),
        ] {
            assert!(matches!(check(&open, &[(name, value)], true), Err(Trouble::Header { .. })), "{name}");
        }
    }

    #[test]
    fn an_sdks_timeout_ends_a_buffered_request_but_not_a_stream() {
        let open = keys(&[]);
        let c = check(&open, &[("x-stainless-timeout", "20")], true).unwrap();
        let clocks = Clocks::default();
        assert!(c.deadline(Moment::ZERO, false, &clocks).is_clients());
        assert!(!c.deadline(Moment::ZERO, true, &clocks).is_clients());
        assert!(check(&open, &[("x-stainless-timeout", "NOT_GIVEN")], true).unwrap().sdk_timeout.is_none());
    }
}
