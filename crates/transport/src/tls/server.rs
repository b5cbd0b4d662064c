//! TLS towards clients: our certificate, the handshake, and its place among the thread's streams.
//!
//! A handshake is two round trips of waiting and some bursts of arithmetic: about 1 ms to sign with
//! an RSA key, a tenth of that with an elliptic curve. After an outage every client comes back at
//! once, and a thousand bursts in a row would be a second in which no stream moves. So a handshake
//! works only in its turn: [`TURNS`] of them between two looks at everything else on the thread.
//! Waiting for a client takes no turn; a client that says nothing keeps nobody waiting.
//!
//! Resumption goes by tickets that hold their own state, under a key that all threads share, so it
//! does not matter which thread a client comes back to, and nothing is kept for those who do not.

use super::client::TlsError;
use crate::io::{BoxIo, Io};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes that may work before the thread's other tasks are looked at again: with RSA keys some
/// 4 ms, about what a burst of events costs anyway.
const TURNS: usize = 4;

/// Plaintext or records a connection's TLS may hold for a client that does not read: one record.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

thread_local! {
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(TURNS));
}

/// The version of HTTP agreed on in the handshake (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1.
    Http11,
    /// The client asked for none.
    Unsaid,
}

/// A certificate chain and its key, ready to answer handshakes. Clones share both.
#[derive(Clone)]
pub struct ServerTls(TlsAcceptor);

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

/// The two PEM files a server's TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: PathBuf,
}

fn wrong(what: &str, path: &Path, why: impl fmt::Display) -> TlsError {
    TlsError(format!("{what} {}: {why}", path.display()))
}

fn pem_error(what: &str, path: &Path, error: rustls::pki_types::pem::Error) -> TlsError {
    use rustls::pki_types::pem::Error;
    match error {
        Error::NoItemsFound => wrong(what, path, "holds none in PEM form"),
        e => wrong(what, path, e),
    }
}

impl ServerTls {
    /// Reads the files and checks that they belong together.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        ServerTls::load_with(files, &|path| std::fs::read(path))
    }

    /// The same, with files as `read` has them.
    pub fn load_with(files: &TlsFiles, read: &dyn Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Self, TlsError> {
        const CHAIN: &str = "certificate file";
        const KEY: &str = "key file";
        let bytes = |what, path: &Path| read(path).map_err(|e| wrong(what, path, format_args!("cannot be read: {e}")));
        let chain = CertificateDer::pem_slice_iter(&bytes(CHAIN, &files.certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| pem_error(CHAIN, &files.certificate, e))?;
        if chain.is_empty() {
            return Err(wrong(CHAIN, &files.certificate, "holds no certificate in PEM form"));
        }
        let key = PrivateKeyDer::from_pem_slice(&bytes(KEY, &files.key)?).map_err(|e| pem_error(KEY, &files.key, e))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError(e.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key);
        let mut config = config.map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => wrong(
                KEY,
                &files.key,
                format_args!("is not the key of the first certificate in {}", files.certificate.display()),
            ),
            e => wrong("certificate or key in", &files.certificate, e),
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|e| TlsError(e.to_string()))?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(ServerTls(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands over `io`: the connection inside, and what is going to be spoken there.
    pub async fn handshake(&self, io: BoxIo) -> io::Result<(BoxIo, Alpn)> {
        let mut stream = in_turns(self.0.accept(io)).await?;
        let session = stream.get_mut().1;
        session.set_buffer_limit(Some(BUFFER_BYTES_MAX));
        let alpn = match session.alpn_protocol() {
            Some(b"h2") => Alpn::Http2,
            Some(_) => Alpn::Http11,
            None => Alpn::Unsaid,
        };
        Ok((Box::new(stream), alpn))
    }
}

/// Polls `work` only in its turn, which lasts until the thread has looked at its other tasks.
async fn in_turns<F: Future + Unpin>(mut work: F) -> F::Output {
    let turns = TURN.with(Arc::clone);
    loop {
        // The semaphore is never closed.
        let turn = turns.acquire().await.ok();
        let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut work).poll(cx))).await;
        everyone_else().await;
        if let Poll::Ready(done) = polled {
            return done;
        }
        // What came during that look is worked on within the same turn; after it the turn is
        // over, and the wait for the client begins with its waker in place.
        let mut turn = turn;
        let mut waited = false;
        let done = poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(None);
            }
            let polled = Pin::new(&mut work).poll(cx);
            drop(turn.take());
            polled.map(Some)
        });
        if let Some(done) = done.await {
            return done;
        }
    }
}

/// Ready once the thread has looked at its other tasks and its sockets. A plain yield ends with any
/// wake-up of the task, and the client's next bytes are one.
async fn everyone_else() {
    let mut look: Option<Arc<Look>> = None;
    poll_fn(|cx| match &look {
        Some(look) if look.over.load(Ordering::Acquire) => Poll::Ready(()),
        Some(_) => Poll::Pending,
        None => {
            let begun = Arc::new(Look { over: AtomicBool::new(false), task: cx.waker().clone() });
            let waker = Waker::from(Arc::clone(&begun));
            look = Some(begun);
            // Polled once, it asks the runtime to wake this waker after its other work.
            pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker))
        }
    })
    .await;
}

/// One look of the thread at everything else.
struct Look {
    over: AtomicBool,
    task: Waker,
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        self.over.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl Io for TlsStream<BoxIo> {
    fn reset_on_drop(&mut self) {
        self.get_mut().0.reset_on_drop();
    }
}
