//! TLS on the accepting side: what is agreed on, what is refused, and that a storm is let in in turns.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidegate_transport::{Alpn, Clock, Listen, MemoryNetwork, ServerTls, TaskKind, Tasks, TlsFiles, TlsListen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

const SERVER: TaskKind = TaskKind { name: "test server", on_cancel: "ends", on_error: "ends" };
const CLIENT: TaskKind = TaskKind { name: "test client", on_cancel: "ends", on_error: "ends" };

/// Files that go with their value.
struct Files(TlsFiles);

impl Drop for Files {
    fn drop(&mut self) {
        for file in [&self.0.certificate, &self.0.key] {
            let _ = std::fs::remove_file(file);
        }
    }
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tidegate-{}-{name}.pem", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

fn certificate(name: &str) -> (Files, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = file(&format!("{name}-cert"), &cert.pem());
    let key = file(&format!("{name}-key"), &signing_key.serialize_pem());
    (Files(TlsFiles { certificate, key }), cert.der().clone())
}

fn connector(
    believed: CertificateDer<'static>,
    alpn: &[&[u8]],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(believed).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let mut config =
        builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|a| a.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

#[tokio::test]
async fn the_version_of_http_is_agreed_on_and_a_client_comes_back_without_a_full_handshake() {
    let (files, believed) = certificate("alpn");
    // Two readings of the same files would be two processes; one reading is shared by all threads.
    let tls = ServerTls::load(&files.0).unwrap();
    let network = MemoryNetwork::new();
    let mut door = TlsListen::new(Box::new(network.listen("a:1")), tls);
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        for (offered, agreed) in
            [(&[&b"h2"[..], b"http/1.1"][..], Alpn::Http2), (&[b"http/1.1"], Alpn::Http11), (&[], Alpn::Unsaid)]
        {
            let connector = connector(believed.clone(), offered, versions);
            for round in 0..2 {
                let io = network.connect("a:1").unwrap();
                let accepted = door.accept().await.unwrap();
                assert!(accepted.is_tls());
                let server = async {
                    let (mut io, alpn) = accepted.secure().await.unwrap();
                    assert_eq!(alpn, agreed);
                    io.write_all(b"hello").await.unwrap();
                    io.shutdown().await.unwrap();
                };
                let client = async {
                    let mut io = connector.connect(localhost(), io).await.unwrap();
                    let mut text = String::new();
                    io.read_to_string(&mut text).await.unwrap();
                    assert_eq!(text, "hello");
                    io.get_ref().1.handshake_kind()
                };
                let ((), kind) = tokio::join!(server, client);
                let want = if round == 0 { rustls::HandshakeKind::Full } else { rustls::HandshakeKind::Resumed };
                assert_eq!(kind, Some(want), "{offered:?} {versions:?}");
            }
        }
    }
}

/// A client believes one of two certificates; whichever is shown is the one that was put in place last.
#[tokio::test]
async fn another_certificate_is_shown_to_whoever_comes_after_it() {
    let (old, believes_old) = certificate("before");
    let (new, believes_new) = certificate("after");
    let network = MemoryNetwork::new();
    let mut door = TlsListen::new(Box::new(network.listen("a:1")), ServerTls::load(&old.0).unwrap());
    let renew = door.renewer();
    for (renews, shaken) in [(false, [true, false]), (true, [false, true])] {
        if renews {
            renew(ServerTls::load(&new.0).unwrap());
        }
        for (believed, shakes) in [&believes_old, &believes_new].into_iter().zip(shaken) {
            let connector = connector(believed.clone(), &[b"http/1.1"], &[&rustls::version::TLS13]);
            let io = network.connect("a:1").unwrap();
            let accepted = door.accept().await.unwrap();
            let (server, client) = tokio::join!(accepted.secure(), connector.connect(localhost(), io));
            assert_eq!((server.is_ok() && client.is_ok(), client.is_ok()), (shakes, shakes), "renewed: {renews}");
        }
    }
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_reason() {
    let (good, _) = certificate("good");
    let (other, _) = certificate("other");
    let empty = file("none", "");
    let missing = PathBuf::from("no/such/file.pem");
    let with = |certificate: &PathBuf, key: &PathBuf| {
        let files = TlsFiles { certificate: certificate.clone(), key: key.clone() };
        ServerTls::load(&files).unwrap_err().to_string()
    };
    let check = |said: String, parts: &[&str]| {
        for part in parts {
            assert!(said.contains(part), "{said}\nlacks {part}");
        }
    };
    check(with(&missing, &good.0.key), &["certificate file no/such/file.pem: cannot be read"]);
    check(with(&good.0.certificate, &missing), &["key file no/such/file.pem: cannot be read"]);
    check(with(&empty, &good.0.key), &["certificate file", "-none.pem: holds no certificate in PEM form"]);
    check(with(&good.0.certificate, &empty), &["key file", "-none.pem: holds none in PEM form"]);
    check(
        with(&good.0.certificate, &other.0.key),
        &["key file", "other-key.pem: is not the key of the first certificate"],
    );
    check(with(&good.0.key, &good.0.key), &["certificate file", "holds no certificate in PEM form"]);
    std::fs::remove_file(empty).unwrap();
}

#[tokio::test]
async fn a_cleartext_opening_of_a_tls_connection_is_refused_and_garbage_ends_it() {
    let (files, _) = certificate("garbage");
    let network = MemoryNetwork::new();
    let mut door = TlsListen::new(Box::new(network.listen("a:1")), ServerTls::load(&files.0).unwrap());
    let _io = network.connect("a:1").unwrap();
    assert!(door.accept().await.unwrap().open().is_err());
    let mut io = network.connect("a:1").unwrap();
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(door.accept().await.unwrap().secure().await.is_err());
}

/// Two hundred clients at once, and one stream that ticks: it is looked at between their turns.
#[tokio::test]
async fn a_storm_of_handshakes_takes_turns_and_silent_clients_take_none() {
    let (files, believed) = certificate("storm");
    let network = MemoryNetwork::new();
    let mut door = TlsListen::new(Box::new(network.listen("a:1")), ServerTls::load(&files.0).unwrap());
    let tasks = Tasks::new();
    // More that say nothing than there are turns.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(network.connect("a:1").unwrap());
        let accepted = door.accept().await.unwrap();
        tasks.spawn(&SERVER, async move { drop(accepted.secure().await) });
    }
    let looks = Arc::new(AtomicUsize::new(0));
    let ticks = Arc::clone(&looks);
    let ticking = tasks.spawn(&CLIENT, async move {
        loop {
            tokio::task::yield_now().await;
            ticks.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut shaken = Vec::new();
    for _ in 0..200 {
        let io = network.connect("a:1").unwrap();
        let accepted = door.accept().await.unwrap();
        tasks.spawn(&SERVER, async move { accepted.secure().await.unwrap().0.write_all(b"x").await.unwrap() });
        let connector = connector(believed.clone(), &[], rustls::ALL_VERSIONS);
        shaken.push(tasks.spawn(&CLIENT, async move {
            let mut io = connector.connect(localhost(), io).await.unwrap();
            io.read_u8().await.unwrap()
        }));
    }
    for shaken in shaken {
        assert_eq!(shaken.await.unwrap(), b'x');
    }
    let looks = looks.load(Ordering::Relaxed);
    assert!(looks >= 200 / 4, "{looks} looks at the rest of the thread");
    ticking.abort();
    drop(silent);
    Clock::real().within(Duration::from_secs(5), tasks.all_ended()).await.unwrap();
}
