//! TLS towards an upstream, over real sockets: who is believed, and what is said when nobody is.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

use bytes::{Bytes, BytesMut};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::time::Duration;
use tidegate_transport::http1::ClientConn;
use tidegate_transport::http2::Connection;
use tidegate_transport::{
    ClientError, Clock, Dial, DialClocks, DialStage, HttpOffer, Target, TaskKind, Tasks, TcpDial, TlsRoots,
};
use tidegate_wire::http::HeadWriter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

const SERVER: TaskKind = TaskKind { name: "test server", on_cancel: "ends", on_error: "ends" };

/// A file of roots, gone with its value.
struct Roots(TlsRoots);

impl Roots {
    fn new(name: &str, text: &str) -> Self {
        let file = std::env::temp_dir().join(format!("tidegate-{}-{name}.pem", std::process::id()));
        std::fs::write(&file, text).unwrap();
        Roots(TlsRoots::File(file))
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        if let TlsRoots::File(file) = &self.0 {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// A certificate of its own for `localhost`; what to believe.
fn config(name: &str) -> (rustls::ServerConfig, Roots) {
    config_of(name, &called(name))
}

fn called(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn config_of(name: &str, params: &CertificateParams) -> (rustls::ServerConfig, Roots) {
    let signing_key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    let roots = Roots::new(name, &cert.pem());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (config, roots)
}

/// A server that answers one request over HTTP/1.1; its port, and what to believe.
async fn server(name: &str) -> (u16, Roots) {
    let (config, roots) = config(name);
    (serve(config).await, roots)
}

async fn serve(config: rustls::ServerConfig) -> u16 {
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
    port
}

fn dialler(roots: &TlsRoots) -> TcpDial {
    TcpDial::new(Clock::real(), DialClocks::default(), roots).unwrap()
}

fn target(host: &str, port: u16) -> Target {
    Target { host: host.to_owned(), port, tls: true, http: HttpOffer::Http1, proxy: None }
}

#[tokio::test]
async fn a_certificate_from_the_file_is_believed_and_the_request_goes_through() {
    let (port, roots) = server("good").await;
    let io = dialler(&roots.0).dial(&target("localhost", port)).await.unwrap().io;
    let mut conn = ClientConn::new(io);
    let mut head = BytesMut::new();
    HeadWriter::request(&mut head, "GET", "/secure").header("host", b"localhost").end();
    conn.send(head, Bytes::new(), || {}).await.unwrap();
    assert_eq!(conn.read_head(false, true).await.unwrap().status, 200);
    let mut body = BytesMut::new();
    conn.read_body(&mut body, 100).await.unwrap();
    assert_eq!(&body[..], b"secret");
}

/// What is said of a handshake that comes to nothing, in one line.
async fn refused(roots: &TlsRoots, host: &str, port: u16) -> String {
    let e = dialler(roots).dial(&target(host, port)).await.err().unwrap();
    assert_eq!((e.stage, e.timed_out), (DialStage::Tls, false), "{host}: {e}");
    e.to_string()
}

#[tokio::test]
async fn a_stranger_or_a_wrong_name_is_refused_in_the_tls_stage() {
    let (port, roots) = server("bad").await;
    let said = refused(&TlsRoots::Machine, "localhost", port).await;
    assert!(said.contains("signed by a CA that is not known; set `ca_file`"), "{said}");
    // Whether its name is another's or the same.
    let (_, others) = config("others");
    let (_, namesake) = config_of("namesake", &called("bad"));
    for roots in [&others.0, &namesake.0] {
        let said = refused(roots, "localhost", port).await;
        assert!(said.contains("signed by a CA that is not in the ca_file"), "{said}");
    }
    let said = refused(&roots.0, "127.0.0.1", port).await;
    assert!(said.contains("the certificate is not for 127.0.0.1, but for localhost; write one of"), "{said}");
}

#[tokio::test]
async fn a_certificate_out_of_its_time_or_of_a_ca_is_told_as_that() {
    let soon = rcgen::date_time_ymd(2100, 1, 2);
    let params = || CertificateParams::new(["localhost".to_owned()]).unwrap();
    let (mut over, mut early, mut ca) = (params(), params(), params());
    over.not_after = rcgen::date_time_ymd(2020, 1, 2);
    early.not_before = soon;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (name, params, want) in [
        ("over", over, "the certificate expired at 2020-01-02T00:00:00Z; have it renewed"),
        ("early", early, "the certificate is not valid before 2100-01-02T00:00:00Z; check the clock"),
        ("ca", ca, "the certificate is a CA's own, used as a server's; make one that says CA:FALSE"),
    ] {
        let (config, roots) = config_of(name, &params);
        let port = serve(config).await;
        let said = refused(&roots.0, "localhost", port).await;
        assert!(said.contains(want), "{said}");
    }
}

#[tokio::test]
async fn tls_and_plain_http_at_each_others_ports_are_told_apart_from_broken_ones() {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    Tasks::new().spawn(&SERVER, async move {
        for said in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
            let (mut tcp, _) = plain.accept().await.unwrap();
            tcp.read_buf(&mut BytesMut::with_capacity(4096)).await.unwrap();
            tcp.write_all(said).await.unwrap();
        }
    });
    let said = refused(&TlsRoots::Machine, "localhost", port).await;
    assert!(said.contains("does not speak TLS; write http://"), "{said}");
    let said = refused(&TlsRoots::Machine, "localhost", port).await;
    assert!(said.contains("closed the connection instead of speaking TLS; check"), "{said}");

    let (port, _roots) = server("plain").await;
    let target = Target { tls: false, ..target("localhost", port) };
    let mut conn = ClientConn::new(dialler(&TlsRoots::Machine).dial(&target).await.unwrap().io);
    let mut head = BytesMut::new();
    HeadWriter::request(&mut head, "GET", "/").header("host", b"localhost").end();
    conn.send(head, Bytes::new(), || {}).await.unwrap();
    let e = conn.read_head(false, true).await.err().unwrap();
    assert!(matches!(e, ClientError::SpeaksTls) && e.to_string().contains("write https://"), "{e}");
}

/// A TLS server that offers `alpn`; tells for each connection what was chosen and whether it was
/// resumed.
async fn chooser(name: &str, alpn: &[&[u8]]) -> (u16, Roots, mpsc::Receiver<(Option<Vec<u8>>, bool)>) {
    let (mut config, roots) = config(name);
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, heard) = mpsc::channel(8);
    Tasks::new().spawn(&SERVER, async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let (_, session) = tls.get_ref();
            let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            told.send((session.alpn_protocol().map(<[u8]>::to_vec), resumed)).await.unwrap();
            // A byte, so that the client reads the tickets that come before it.
            tls.write_all(b"x").await.unwrap();
            let _ = tls.read(&mut [0; 1]).await;
        }
    });
    (port, roots, heard)
}

#[tokio::test]
async fn the_server_chooses_among_what_is_offered() {
    const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (n, (offer, alpn, want)) in [
        (HttpOffer::Auto, BOTH, Ok(true)),
        (HttpOffer::Auto, &[b"http/1.1"], Ok(false)),
        (HttpOffer::Auto, &[], Ok(false)),
        (HttpOffer::Http1, BOTH, Ok(false)),
        (HttpOffer::Http2, BOTH, Ok(true)),
        (HttpOffer::Http2, &[], Err("does not offer HTTP/2")),
        (HttpOffer::Http2, &[b"http/1.1"], Err("no_application_protocol")),
    ]
    .into_iter()
    .enumerate()
    {
        let (port, roots, _heard) = chooser(&format!("alpn{n}"), alpn).await;
        let target = Target { http: offer, ..target("localhost", port) };
        match (dialler(&roots.0).dial(&target).await, want) {
            (Ok(dialled), Ok(want)) => assert_eq!(dialled.http2, want, "{offer:?} {alpn:?}"),
            (Err(e), Err(want)) => {
                assert_eq!(e.stage, DialStage::Tls);
                assert!(e.message.contains(want), "{e}");
            }
            (got, want) => panic!("{offer:?} {alpn:?}: {:?}, wanted {want:?}", got.map(|d| d.http2)),
        }
    }
}

#[tokio::test]
async fn http2_is_spoken_where_it_was_chosen() {
    let (mut config, roots) = config("http2");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { http: HttpOffer::Auto, ..target("localhost", listener.local_addr().unwrap().port()) };
    Tasks::new().spawn(&SERVER, async move {
        let tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let mut conn = h2::server::handshake(tls).await.unwrap();
        while let Some(Ok((request, mut respond))) = conn.accept().await {
            assert_eq!(request.uri().to_string(), "https://localhost/secure");
            let mut out = respond.send_response(http::Response::new(()), false).unwrap();
            out.send_data(Bytes::from("secret"), true).unwrap();
        }
    });
    let dialled = dialler(&roots.0).dial(&target).await.unwrap();
    assert!(dialled.http2);
    let tasks = Tasks::new();
    let conn = Connection::open(dialled.io, Clock::real(), &tasks, |_| {}).await.unwrap();
    let request = http::Request::get("https://localhost/secure").body(()).unwrap();
    let mut stream = conn.begin(request, true).unwrap();
    assert_eq!(stream.read_head().await.unwrap().status, 200);
    let mut body = BytesMut::new();
    stream.read_body(&mut body, 100).await.unwrap();
    assert_eq!(&body[..], b"secret");
    drop((stream, conn));
    tasks.all_ended().await;
}

#[tokio::test]
async fn the_second_handshake_resumes_the_first_whatever_it_offers() {
    let (port, roots, mut heard) = chooser("resumed", &[b"h2", b"http/1.1"]).await;
    let dialler = dialler(&roots.0);
    for (offer, protocol, resumed) in
        [(HttpOffer::Auto, "h2", false), (HttpOffer::Auto, "h2", true), (HttpOffer::Http1, "http/1.1", true)]
    {
        let target = Target { http: offer, ..target("localhost", port) };
        let mut io = dialler.dial(&target).await.unwrap().io;
        io.read_exact(&mut [0; 1]).await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), (Some(protocol.as_bytes().to_vec()), resumed));
    }
}

#[tokio::test]
async fn a_file_without_certificates_is_refused_by_name() {
    let roots = Roots::new("empty", "no certificate");
    let clocks = DialClocks { connect: Duration::from_secs(1), tls: Duration::from_secs(1), ..DialClocks::default() };
    let e = TcpDial::new(Clock::real(), clocks, &roots.0).err().unwrap();
    assert!(e.to_string().contains(&format!("tidegate-{}-empty.pem", std::process::id())), "{e}");
}
