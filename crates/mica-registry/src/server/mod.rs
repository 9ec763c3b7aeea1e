//! The HTTP server: connections in, answers out, and an orderly end.

mod blobs;
mod body;
mod connection;
mod exchange;
mod listings;
mod manifests;
mod metrics;
mod page;
mod reply;
mod tokens;
mod uploads;
mod webhook;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mica_api::{Class, Fault};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

use self::connection::{Phase, Timed};
use self::webhook::Sender;
use crate::error::chain;
use crate::proxy::{Proxies, ProxyError};
use crate::settings::{Observer, Settings};
use crate::storage::changes::Grace;
use crate::storage::writer::Terms;
use crate::storage::{OpenError, Storage};
use crate::tls::Tls;

/// Bounds the head of a request, and what is in memory of an answer.
const BUFFER_BYTES: usize = 64 << 10;
/// How often what is over is looked for.
const CHORES: Duration = Duration::from_secs(600);
/// Connections at the same time; the next one waits.
const CONNECTIONS_MAX: usize = 4096;
/// From the first byte to the end of TLS's greeting.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long somebody who was told of a blob may rely on it.
const LEASE: Duration = Duration::from_secs(3600);

/// Why a registry does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nobody can be told of events.
    #[error("cannot send events to {url}: {why}")]
    Webhook {
        /// As asked for.
        url: String,
        /// Why not.
        why: String,
    },
    /// A registry cannot be cached.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The address cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// As asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The system refused a thread or the like.
    #[error("cannot start the registry")]
    Runtime(#[source] io::Error),
}

impl Fault for StartError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Proxy(error) => error.class(),
            Self::Webhook { .. } => Class::Invalid,
            Self::Listen { source, .. } | Self::Runtime(source) => Class::of_io(source),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Open(error) => error.advice(),
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("something else listens there; choose another address".to_owned())
            }
            Self::Proxy(_) | Self::Webhook { .. } | Self::Listen { .. } | Self::Runtime(_) => None,
        }
    }
}

/// A registry that is ready to serve.
pub struct Registry {
    shared: Arc<Shared>,
    listener: TcpListener,
    address: SocketAddr,
    sender: Option<Sender>,
    stop: Arc<Notify>,
}

/// Ends a registry from another thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<Notify>);

/// What all connections work with.
pub(crate) struct Shared {
    pub(crate) storage: Arc<Storage>,
    pub(crate) proxies: Proxies,
    pub(crate) settings: Settings,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) counts: metrics::Counts,
    connections: AtomicUsize,
}

impl Stopper {
    /// No new connection is taken; transfers under way may end.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

impl Registry {
    /// Opens the data folder and listens.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn bind(settings: Settings, observer: Arc<dyn Observer>) -> Result<Self, StartError> {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 4);
        let grace =
            Grace { unreferenced: seconds(settings.grace), lease: seconds(LEASE.min(settings.grace)) };
        let address = settings.address;
        let listener = TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })?;
        listener.set_nonblocking(true).map_err(StartError::Runtime)?;
        let address = listener.local_addr().map_err(StartError::Runtime)?;
        let proxies = Proxies::new(&settings.proxies)?;
        let sender = settings.webhook.as_ref().map(Sender::new).transpose()?;
        let terms = Terms { quota: settings.quota.clone(), records_events: sender.is_some() };
        let storage = Arc::new(Storage::open(&settings.data, grace, terms)?);
        settings.access.prepare(&storage.layout.token_key()).map_err(|source| OpenError::Io {
            action: "read or make",
            path: storage.layout.token_key(),
            source,
        })?;
        let counts = metrics::Counts::default();
        let shared = Arc::new(Shared {
            storage,
            proxies,
            settings,
            observer,
            counts,
            connections: AtomicUsize::new(0),
        });
        Ok(Self { shared, listener, address, sender, stop: Arc::default() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends [`Registry::serve`].
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// The system has no threads for it.
    pub fn serve(self) -> Result<(), StartError> {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 16);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(128)
            .enable_io()
            .enable_time()
            .build()
            .map_err(StartError::Runtime)?;
        let Self { shared, listener, stop, sender, .. } = self;
        let ended = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(StartError::Runtime)?;
            tokio::spawn(chores(Arc::clone(&shared)));
            if let Some(sender) = sender {
                tokio::spawn(sender.run(Arc::clone(&shared)));
            }
            accept(&shared, listener, &stop).await;
            Ok(())
        });
        // Blocking work that hangs on a dead disk does not keep the process.
        runtime.shutdown_timeout(Duration::from_secs(5));
        shared.storage.close();
        ended
    }
}

impl Shared {
    /// Tells the owner of something that went wrong beside any request.
    fn complain(&self, what: &str, error: &dyn std::error::Error) {
        self.observer.notice(&format!("{what}: {}", chain(error)));
    }
}

async fn accept(shared: &Arc<Shared>, listener: tokio::net::TcpListener, stop: &Notify) {
    let (ending, is_ending) = watch::channel(false);
    loop {
        let full = shared.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX;
        let accepted = tokio::select! {
            accepted = listener.accept(), if !full => accepted,
            () = tokio::time::sleep(Duration::from_millis(50)), if full => continue,
            () = stop.notified() => break,
        };
        match accepted {
            Ok((stream, remote)) => {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(converse(Arc::clone(shared), stream, remote, is_ending.clone()));
            }
            Err(error) => {
                // Out of descriptors, mostly: others will end.
                shared.complain("cannot accept a connection", &error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop((listener, is_ending));
    // Nobody may be there to hear it.
    let _unheard = ending.send(true);
    let left = async { ending.closed().await };
    if tokio::time::timeout(shared.settings.drain, left).await.is_err() {
        let left = shared.connections.load(Ordering::Relaxed);
        shared.observer.notice(&format!("{left} transfers were cut off: they took too long to end"));
    }
}

/// One connection, to its end.
async fn converse(
    shared: Arc<Shared>,
    stream: tokio::net::TcpStream,
    remote: SocketAddr,
    is_ending: watch::Receiver<bool>,
) {
    // Small answers go out at once; a kernel that refuses only makes them slower.
    let _slower = stream.set_nodelay(true);
    match shared.settings.tls.as_ref().map(Tls::config) {
        None => speak(&shared, stream, remote, is_ending).await,
        Some(config) => {
            let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
            // Who does not get through it is told by TLS itself.
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, handshake).await {
                speak(&shared, stream, remote, is_ending).await;
            }
        }
    }
    shared.connections.fetch_sub(1, Ordering::Relaxed);
}

async fn speak<S>(shared: &Arc<Shared>, stream: S, remote: SocketAddr, mut is_ending: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let phase = Phase::default();
    let stream = TokioIo::new(Timed::new(stream, phase.clone()));
    let caller = Arc::new(exchange::Caller { shared: Arc::clone(shared), phase, remote });
    let service = hyper::service::service_fn(move |request| exchange::answer(Arc::clone(&caller), request));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(BUFFER_BYTES).half_close(false);
    let mut connection = std::pin::pin!(builder.serve_connection(stream, service));
    // Errors of a connection are its client's: it went away, or spoke no HTTP.
    let has_ended = tokio::select! {
        _ended = connection.as_mut() => true,
        () = asked_to_end(&mut is_ending) => false,
    };
    if !has_ended {
        connection.as_mut().graceful_shutdown();
        let _ended = connection.await;
    }
}

async fn asked_to_end(is_ending: &mut watch::Receiver<bool>) {
    // The sender is only dropped when the server ends, which is the same.
    let _gone = is_ending.wait_for(|ending| *ending).await;
}

/// What has to be done now and then.
async fn chores(shared: Arc<Shared>) {
    let mut is_first = true;
    // What is to be kept only shortly is looked for accordingly.
    let shortest =
        shared.settings.untagged.map_or(shared.settings.grace, |age| age.min(shared.settings.grace));
    let pause = shortest.clamp(Duration::from_secs(1), CHORES);
    loop {
        let shared = Arc::clone(&shared);
        let sweeps = std::mem::replace(&mut is_first, false);
        // A panic in there is reported by itself, and the next round tries again.
        let _panicked = tokio::task::spawn_blocking(move || {
            if let Err(error) = shared.storage.uploads.purge(shared.settings.upload_age) {
                shared.complain("cannot purge old uploads", &error);
            }
            if let Some(age) = shared.settings.untagged
                && let Err(error) = shared.storage.expire_untagged(age)
            {
                shared.complain("cannot remove untagged manifests", &error);
            }
            match shared.storage.collect() {
                Ok(freed) => shared.counts.collected(freed),
                Err(error) => shared.complain("cannot collect", &error),
            }
            // Strays come from crashes, so once per process is often enough.
            if sweeps && let Err(error) = shared.storage.sweep() {
                shared.complain("cannot look for files without a row", &error);
            }
        })
        .await;
        tokio::time::sleep(pause).await;
    }
}
