//! Instances for the edge to talk to: one that answers by path, and one that does with the socket what a test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use berth_wire::edge::Upstream;
use berth_wire::id::InstanceId;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

type Body = BoxBody<Bytes, std::convert::Infallible>;

/// An instance.
pub struct Instance {
    pub upstream: Upstream,
    /// Requests that came.
    pub requests: Arc<AtomicU32>,
    /// Set when no request may come any more; those that come all the same are counted.
    pub late: Arc<AtomicU32>,
    pub quiet: Arc<std::sync::atomic::AtomicBool>,
    /// `/wait` answers one request for each permit.
    pub gate: Arc<Semaphore>,
    /// `/events` passes these on, one frame each.
    pub events: mpsc::UnboundedSender<&'static str>,
    _serving: AbortOnDropHandle<()>,
}

struct Shared {
    name: String,
    requests: Arc<AtomicU32>,
    late: Arc<AtomicU32>,
    quiet: Arc<std::sync::atomic::AtomicBool>,
    gate: Arc<Semaphore>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<&'static str>>,
}

impl Instance {
    pub fn id(&self) -> InstanceId {
        self.upstream.instance
    }

    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }

    /// One that answers by path.
    pub async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = upstream(listener.local_addr().unwrap(), name);
        let (events, receiver) = mpsc::unbounded_channel();
        let (requests, late, quiet) = <(Arc<AtomicU32>, Arc<AtomicU32>, Arc<_>)>::default();
        let gate = Arc::new(Semaphore::new(0));
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            requests: requests.clone(),
            late: late.clone(),
            quiet: Arc::clone(&quiet),
            gate: gate.clone(),
            events: tokio::sync::Mutex::new(receiver),
        });
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, shared)));
        Self { upstream, requests, late, quiet, gate, events, _serving: serving }
    }
}

pub fn upstream(address: SocketAddr, process: &str) -> Upstream {
    Upstream { instance: InstanceId(Uuid::now_v7()), process: process.to_owned(), address }
}

/// One that does with each connection what it is told. Give its upstream to the edge.
pub async fn scripted<F, R>(script: F) -> (Upstream, AbortOnDropHandle<()>)
where
    F: Fn(usize, TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = upstream(listener.local_addr().unwrap(), "web.1");
    let serving = tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(script(connection, stream));
        }
    });
    (upstream, AbortOnDropHandle::new(serving))
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Aborted with the listener: a stopped instance drops its connections.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(shared.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

fn full(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).boxed())
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    if shared.quiet.load(Ordering::SeqCst) {
        shared.late.fetch_add(1, Ordering::SeqCst);
    }
    Ok(match request.uri().path() {
        "/wait" => {
            shared.gate.acquire().await.unwrap().forget();
            full("waited")
        }
        "/head" => {
            let mut lines: Vec<String> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
                .collect();
            lines.insert(0, format!("{} {}", request.method(), request.uri()));
            full(lines.join("\n"))
        }
        "/echo" => {
            let trailer = request.headers().get("trailer").cloned();
            let body = request.into_body();
            let mut response = Response::new(body.map_err(|error| panic!("{error}")).boxed());
            if let Some(trailer) = trailer {
                response.headers_mut().insert("trailer", trailer);
            }
            response
        }
        "/count" => {
            let mut body = request.into_body();
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                bytes += frame?.data_ref().map_or(0, Bytes::len);
            }
            full(bytes.to_string())
        }
        "/huge" => {
            let chunk = Bytes::from(vec![b'x'; 1 << 16]);
            let frames = stream::iter(0..1_024).map(move |_| Ok(Frame::data(chunk.clone())));
            Response::new(BodyExt::boxed(StreamBody::new(frames)))
        }
        "/events" => {
            let frames = stream::unfold(shared, |shared| async move {
                let event = shared.events.lock().await.recv().await?;
                Some((Ok(Frame::data(Bytes::from(event))), shared))
            });
            Response::new(BodyExt::boxed(StreamBody::new(frames)))
        }
        "/upgrade" => upgrade(request),
        _ => full(shared.name.clone()),
    })
}

fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut tunnel = TokioIo::new(upgraded.await.unwrap());
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = tunnel.read(&mut buffer).await {
            if tunnel.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", "echo".parse().unwrap());
    response
}
