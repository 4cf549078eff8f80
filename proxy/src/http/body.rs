//! The body of a request, streamed to the endpoint and kept for a replay as long as it is small.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A request whose body is longer cannot be sent again once that much was sent.
const KEEP: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The client's body, of which each attempt gets a [`RequestBody`].
#[derive(Debug, Clone, Default)]
pub struct Source(Option<Rc<RefCell<Kept>>>);

#[derive(Debug)]
struct Kept {
    incoming: Incoming,
    /// What the client said of the length.
    hint: SizeHint,
    /// What was sent, while it is short enough.
    data: Vec<Bytes>,
    length: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// More was sent than is kept.
    overflown: bool,
    /// The client broke off.
    failed: bool,
    /// Number of the attempt that may read on.
    attempt: u32,
}

/// The body of one attempt. Only the last one made can be read.
#[derive(Debug)]
pub struct RequestBody {
    kept: Option<Rc<RefCell<Kept>>>,
    attempt: u32,
    next: usize,
    sent: u64,
    trailers_sent: bool,
}

impl Source {
    /// Takes the client's body over.
    pub fn new(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        Self(Some(Rc::new(RefCell::new(Kept {
            hint: incoming.size_hint(),
            incoming,
            data: Vec::new(),
            length: 0,
            trailers: None,
            ended: false,
            overflown: false,
            failed: false,
            attempt: 0,
        }))))
    }

    /// The whole body again, for one more attempt.
    pub fn attempt(&self) -> RequestBody {
        let attempt = self.0.as_ref().map_or(0, |kept| {
            let mut kept = kept.borrow_mut();
            kept.attempt += 1;
            kept.attempt
        });
        RequestBody {
            kept: self.0.clone(),
            attempt,
            next: 0,
            sent: 0,
            trailers_sent: false,
        }
    }

    /// Whether everything that was read of it can be sent again.
    pub fn can_replay(&self) -> bool {
        self.0.as_ref().is_none_or(|kept| {
            let kept = kept.borrow();
            !kept.overflown && !kept.failed
        })
    }

    /// Whether the client broke off.
    pub fn failed(&self) -> bool {
        self.0.as_ref().is_some_and(|kept| kept.borrow().failed)
    }
}

impl Kept {
    fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            None => {
                self.ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.failed = true;
                return Poll::Ready(Some(Err(error.into())));
            }
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            self.keep(data);
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            self.ended = true;
        }
        self.ended |= self.incoming.is_end_stream();
        Poll::Ready(Some(Ok(frame)))
    }

    fn keep(&mut self, data: &Bytes) {
        self.length = self.length.saturating_add(data.len());
        if self.length > KEEP {
            self.overflown = true;
            self.data = Vec::new();
        }
        if !self.overflown {
            self.data.push(data.clone());
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(shared) = self.kept.clone() else {
            return Poll::Ready(None);
        };
        let mut kept = shared.borrow_mut();
        if kept.attempt != self.attempt {
            return Poll::Ready(Some(Err("another attempt has taken over".into())));
        }
        if let Some(data) = kept.data.get(self.next).cloned() {
            self.next += 1;
            self.sent += data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if kept.ended {
            if self.trailers_sent {
                return Poll::Ready(None);
            }
            self.trailers_sent = true;
            let trailers = kept.trailers.clone().map(|t| Ok(Frame::trailers(t)));
            return Poll::Ready(trailers);
        }
        let frame = ready!(kept.poll_client(cx));
        self.next = kept.data.len();
        match &frame {
            Some(Ok(frame)) if frame.is_trailers() => self.trailers_sent = true,
            Some(Ok(frame)) => self.sent += frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) | None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| {
            let kept = kept.borrow();
            let told = self.trailers_sent || kept.trailers.is_none();
            kept.ended && self.next >= kept.data.len() && told
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(kept) = &self.kept else {
            return SizeHint::with_exact(0);
        };
        match kept.borrow().hint.exact() {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.sent)),
            None => SizeHint::default(),
        }
    }
}
