//! Why a TLS handshake failed, in words, and what to do about it.
//!
//! rustls tells it by the names of its types, and names in a certificate are a stranger's text: here
//! they become one line in which nothing is an order to a terminal.

use super::client::TlsRoots;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};
use std::fmt::Display;
use std::io;
use tidegate_base::rfc3339;

/// Names of a certificate that are told; of more only how many.
const NAMES_MAX: usize = 8;
/// The longest of them, characters: what DNS allows.
const NAME_CHARS_MAX: usize = 253;

/// What is wrong, and what to do where that is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) what: String,
    pub(crate) todo: Option<&'static str>,
}

fn told(what: impl Into<String>, todo: &'static str) -> Told {
    Told { what: what.into(), todo: Some(todo) }
}

/// Of a handshake with a server, by someone who believes `roots`.
pub(crate) fn of_server(error: &io::Error, roots: &TlsRoots) -> Told {
    let Some(error) = inside(error) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => told(
                "it closed the connection instead of speaking TLS",
                "check that TLS is spoken at this port (http:// instead of https:// where it is not), and what stands between",
            ),
            _ => Told { what: error.to_string(), todo: None },
        };
    };
    match error {
        Error::InvalidCertificate(why) => certificate(why, roots),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => told(
            "what answers there does not speak TLS",
            "write http:// instead of https:// if it is plain HTTP, or check the port",
        ),
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
        | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            told("it speaks neither TLS 1.2 nor 1.3", "have it brought up to date: older TLS is not spoken")
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => told(
            "it speaks none of the versions of HTTP it was offered (TLS alert no_application_protocol)",
            "set `http` of this upstream to \"auto\" or \"1.1\"",
        ),
        Error::AlertReceived(AlertDescription::UnrecognisedName) => told(
            "it knows no server of this name (TLS alert unrecognized_name)",
            "check the name in `url`, and what stands between",
        ),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            told("it wants a certificate of its client, which Tidegate has none of", "go through a proxy that has one")
        }
        Error::AlertReceived(alert) => {
            Told { what: format!("it refused the handshake (TLS alert {alert:?})"), todo: None }
        }
        error => Told { what: error.to_string(), todo: None },
    }
}

/// Of a handshake with a client.
pub(super) fn of_client(error: &io::Error) -> String {
    match inside(error) {
        Some(Error::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::CertificateUnknown,
        )) => "the client does not believe our certificate: it has to know the CA that signed it".to_owned(),
        Some(Error::AlertReceived(AlertDescription::CertificateExpired)) => {
            "to the client our certificate has expired".to_owned()
        }
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the client does not speak TLS: its URL has to begin with https://".to_owned()
        }
        _ => error.to_string(),
    }
}

fn inside(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn certificate(why: &CertificateError, roots: &TlsRoots) -> Told {
    const RENEW: &str = "have it renewed by whoever runs the upstream; check the clock of this machine";
    match why {
        // A CA that is known may have the same name as the one that signed, and another key.
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => match roots {
            TlsRoots::Machine => told(
                "the certificate is signed by a CA that is not known",
                "set `ca_file` of [tls] to that CA's certificate (of a certificate that signed itself: to itself)",
            ),
            TlsRoots::File(file) => told(
                format!("the certificate is signed by a CA that is not in the ca_file {}", file.display()),
                "add that CA's certificate to the file: it stands in place of the machine's own store",
            ),
        },
        CertificateError::ExpiredContext { not_after, .. } => {
            told(format!("the certificate expired at {}", rfc3339(not_after.as_secs())), RENEW)
        }
        CertificateError::Expired => told("the certificate has expired", RENEW),
        CertificateError::NotValidYetContext { not_before, .. } => told(
            format!("the certificate is not valid before {}", rfc3339(not_before.as_secs())),
            "check the clock of this machine",
        ),
        CertificateError::NotValidYet => told("the certificate is not valid yet", "check the clock of this machine"),
        CertificateError::NotValidForNameContext { expected, presented } => told(
            wrong_name(&expected.to_str(), presented),
            "write one of its names into `url`, or have it made for this one",
        ),
        CertificateError::NotValidForName => told("the certificate is for another name", "check the name in `url`"),
        CertificateError::Revoked => told("the certificate is revoked", RENEW),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => told(
            "the certificate is not made for servers",
            "make one with the extended key usage serverAuth, or without any",
        ),
        // The type behind it is of a crate that is used through rustls only.
        CertificateError::Other(e) if format!("{e:?}").contains("CaUsedAsEndEntity") => told(
            "the certificate is a CA's own, used as a server's",
            "make one that says CA:FALSE (openssl req -x509 … -extensions v3_req), or one that the CA signs",
        ),
        CertificateError::BadEncoding => told("the certificate is malformed", "have it made anew"),
        why => Told { what: format!("the certificate cannot be used: {why}"), todo: None },
    }
}

/// rustls has the names as `DnsName("a")` and `IpAddress(1.2.3.4)`.
fn wrong_name(expected: &dyn Display, presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inner.trim_matches('"').chars().take(NAME_CHARS_MAX).flat_map(char::escape_default).collect::<String>()
    };
    let names: Vec<String> = presented.iter().take(NAMES_MAX).map(bare).collect();
    let more = match presented.len() - names.len() {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    match names.as_slice() {
        [] => format!("the certificate is not for {expected}, nor for any name: it has no subjectAltName"),
        names => format!("the certificate is not for {expected}, but for {}{more}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_stranger_are_few_short_and_no_orders() {
        let mut names = vec!["DnsName(\"a.example\")".to_owned(), "IpAddress(127.0.0.1)".to_owned()];
        assert_eq!(wrong_name(&"b", &names), "the certificate is not for b, but for a.example, 127.0.0.1");
        names.push(format!("DnsName(\"\x1b[2J\n{}\")", "x".repeat(10_000)));
        names.extend((0..20).map(|n| format!("DnsName(\"{n}\")")));
        let said = wrong_name(&"b", &names);
        assert!(said.contains("\\u{1b}[2J\\nxx") && said.ends_with(" and 15 more") && said.len() < 500, "{said}");
        assert!(wrong_name(&"b", &[]).contains("no subjectAltName"));
    }

    #[test]
    fn a_client_that_does_not_believe_us_or_speaks_no_tls_is_told_in_words() {
        let of = |error: Error| of_client(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert!(of(Error::AlertReceived(AlertDescription::UnknownCA)).contains("does not believe our certificate"));
        assert!(of(Error::InvalidMessage(InvalidMessage::InvalidContentType)).contains("https://"));
        assert_eq!(of_client(&io::Error::other("broken")), "broken");
    }
}
