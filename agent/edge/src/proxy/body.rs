//! Bodies on their way: passed on frame by frame, never gathered; counted, timed, limited.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use berth_wire::code::Code;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::exchange::Exchange;
use super::forward::Forwarded;

/// A body broke off; the connection that it was going to is ended, which tells the other side.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    /// The sender's connection ended or spoke nonsense.
    #[error("the sender broke off: {0}")]
    Sender(#[from] hyper::Error),
    /// More than the limit.
    #[error("the body is larger than the edge passes on")]
    TooLarge,
    /// No byte for too long.
    #[error("no byte for too long")]
    Silent,
}

/// When a request's body last moved, as seen by who waits for the response.
#[derive(Debug)]
pub struct Activity {
    begun: Instant,
    /// Milliseconds from `begun`.
    last: AtomicU64,
    complete: AtomicBool,
    too_large: AtomicBool,
}

impl Activity {
    fn touch(&self) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    /// When it last moved.
    pub fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Whether all of it has been passed on.
    pub fn complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Whether it was cut because of its size.
    pub fn too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }
}

/// A request's body, on its way to an instance.
pub struct RequestBody {
    /// None: there is none.
    incoming: Option<(Incoming, Arc<Activity>)>,
    left: u64,
}

impl RequestBody {
    /// The body, and how to see it move; that is None if there is no body.
    pub fn new(incoming: Incoming, bytes_max: u64) -> (Self, Option<Arc<Activity>>) {
        if incoming.is_end_stream() {
            return (Self::none(), None);
        }
        let activity = Arc::new(Activity {
            begun: Instant::now(),
            last: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            too_large: AtomicBool::new(false),
        });
        (Self { incoming: Some((incoming, activity.clone())), left: bytes_max }, Some(activity))
    }

    /// No body.
    pub fn none() -> Self {
        Self { incoming: None, left: 0 }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = &mut *self;
        let Some((incoming, activity)) = &mut this.incoming else { return Poll::Ready(None) };
        let polled = std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx));
        activity.touch();
        match polled {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match this.left.checked_sub(length) {
                    Some(left) => this.left = left,
                    None => {
                        activity.too_large.store(true, Ordering::Relaxed);
                        return Poll::Ready(Some(Err(BrokenOff::TooLarge)));
                    }
                }
                if incoming.is_end_stream() {
                    activity.complete.store(true, Ordering::Relaxed);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => {
                activity.complete.store(true, Ordering::Relaxed);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(|(incoming, _)| incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), |(incoming, _)| incoming.size_hint())
    }
}

/// What the client gets.
pub enum AnswerBody {
    /// A page of the edge's own.
    Page(Option<Bytes>),
    /// An instance's response.
    Upstream(Box<UpstreamBody>),
}

/// An instance's response on its way to the client.
pub struct UpstreamBody {
    incoming: Incoming,
    forwarded: Forwarded,
    exchange: Box<Exchange>,
    last: Instant,
    silence: Option<Pin<Box<Sleep>>>,
}

impl AnswerBody {
    /// A page.
    pub fn page(text: Bytes) -> Self {
        Self::Page(Some(text))
    }

    /// Nothing.
    pub fn empty() -> Self {
        Self::Page(None)
    }

    /// A response's body. With its end the connection is free for the next request.
    pub fn upstream(incoming: Incoming, forwarded: Forwarded, exchange: Box<Exchange>) -> Self {
        let mut body = UpstreamBody { incoming, forwarded, exchange, last: Instant::now(), silence: None };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        Self::Upstream(Box::new(body))
    }
}

impl UpstreamBody {
    fn finish(&mut self) {
        let (Some(connection), Some(in_flight)) =
            (self.forwarded.connection.take(), &self.exchange.in_flight)
        else {
            return;
        };
        // A request whose body the instance has not read to the end leaves the connection in no state for another.
        if self.forwarded.activity.as_ref().is_none_or(|activity| activity.complete()) {
            in_flight.instance().idle.put(connection, self.last);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.last = Instant::now();
                self.exchange.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.exchange.code = Some(Code::H13);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => self.poll_silence(cx),
        }
    }

    /// The timer is set once and moved on only when it fires: a stream of many frames costs no timer each.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let silence_max = self.exchange.edge.limits.silence_max;
        loop {
            let upload = self.forwarded.activity.as_ref().map_or(self.last, |activity| activity.last());
            let deadline = self.last.max(upload) + silence_max;
            let silence =
                self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
            if silence.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= deadline {
                self.exchange.code = Some(Code::H15);
                return Poll::Ready(Some(Err(BrokenOff::Silent)));
            }
            silence.as_mut().reset(deadline.into());
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut *self {
            AnswerBody::Page(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            AnswerBody::Upstream(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Page(text) => text.is_none(),
            AnswerBody::Upstream(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Page(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            AnswerBody::Upstream(body) => body.incoming.size_hint(),
        }
    }
}
