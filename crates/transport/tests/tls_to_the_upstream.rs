//! TLS towards an upstream, over real sockets: who is believed, and what is said when nobody is.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

use bytes::{Bytes, BytesMut};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidegate_transport::http1::ClientConn;
use tidegate_transport::{Clock, Dial, DialClocks, DialStage, Target, TaskKind, Tasks, TcpDial, TlsRoots};
use tidegate_wire::http::HeadWriter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const SERVER: TaskKind = TaskKind { name: "test server", on_cancel: "ends", on_error: "ends" };

/// A server with a certificate of its own for `localhost`; its port, and the file to believe.
async fn server(name: &str) -> (u16, PathBuf) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = std::env::temp_dir().join(format!("tidegate-{}-{name}.pem", std::process::id()));
    std::fs::write(&file, cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    Tasks::new().spawn(&SERVER, async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let mut read = [0; 4096];
            let n = tls.read(&mut read).await.unwrap();
            assert!(read[..n].starts_with(b"GET /secure HTTP/1.1\r\n"));
            tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await.unwrap();
            tls.shutdown().await.unwrap();
        }
    });
    (port, file)
}

fn dialler(roots: &TlsRoots) -> TcpDial {
    TcpDial::new(Clock::real(), DialClocks::default(), roots).unwrap()
}

fn target(host: &str, port: u16) -> Target {
    Target { host: host.to_owned(), port, tls: true }
}

#[tokio::test]
async fn a_certificate_from_the_file_is_believed_and_the_request_goes_through() {
    let (port, file) = server("good").await;
    let io = dialler(&TlsRoots::File(file)).dial(&target("localhost", port)).await.unwrap();
    let mut conn = ClientConn::new(io);
    let mut head = BytesMut::new();
    HeadWriter::request(&mut head, "GET", "/secure").header("host", b"localhost").end();
    conn.send(head, Bytes::new(), || {}).await.unwrap();
    assert_eq!(conn.read_head(false, true).await.unwrap().status, 200);
    let mut body = BytesMut::new();
    conn.read_body(&mut body, 100).await.unwrap();
    assert_eq!(&body[..], b"secret");
}

#[tokio::test]
async fn a_stranger_or_a_wrong_name_is_refused_in_the_tls_stage() {
    let (port, file) = server("bad").await;
    for (roots, host) in [(TlsRoots::Machine, "localhost"), (TlsRoots::File(file), "127.0.0.1")] {
        let e = dialler(&roots).dial(&target(host, port)).await.err().unwrap();
        assert_eq!((e.stage, e.timed_out), (DialStage::Tls, false), "{host}: {e}");
        assert!(e.message.contains("certificate"), "{e}");
    }
}

#[tokio::test]
async fn a_file_without_certificates_is_refused_by_name() {
    let file = std::env::temp_dir().join(format!("tidegate-{}-empty.pem", std::process::id()));
    std::fs::write(&file, "no certificate").unwrap();
    let clocks = DialClocks { connect: Duration::from_secs(1), tls: Duration::from_secs(1) };
    let e = TcpDial::new(Clock::real(), clocks, &TlsRoots::File(file.clone())).err().unwrap();
    assert!(e.to_string().contains(file.to_str().unwrap()), "{e}");
}
