//! The body of an answer on its way to the client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::observe::Tracker;
use crate::upstream::Ticket;

/// What the client gets.
#[derive(Debug)]
pub enum ResponseBody {
    /// Made here.
    Local(Option<Bytes>),
    /// An endpoint's, watched to its end.
    Upstream(Box<Observed>),
}

/// An endpoint's body, and what is to be done when it ends.
#[derive(Debug)]
pub struct Observed {
    body: Incoming,
    open: Option<(Tracker, Ticket)>,
}

impl ResponseBody {
    /// Watches the body of an endpoint; one that is empty has ended.
    pub fn observed(body: Incoming, tracker: Tracker, ticket: Ticket) -> Self {
        let mut observed = Observed {
            body,
            open: Some((tracker, ticket)),
        };
        observed.end_if_ended();
        Self::Upstream(Box::new(observed))
    }

    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self::Local(None)
    }
}

impl Observed {
    /// Hyper does not ask again once the announced length is reached, so the end is looked for
    /// after each frame.
    fn end_if_ended(&mut self) {
        if self.body.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some((mut tracker, ticket)) = self.open.take() {
            tracker.complete();
            ticket.done();
        }
    }
}

impl Body for Observed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some((tracker, _)) = &mut self.open {
            tracker.poll_hung(cx);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.end(),
            Some(Ok(frame)) => {
                if let (Some(trailers), Some((tracker, _))) = (frame.trailers_ref(), &mut self.open)
                {
                    tracker.trailers(trailers);
                }
                self.end_if_ended();
            }
            Some(Err(error)) => {
                if let Some((mut tracker, ticket)) = self.open.take() {
                    tracker.broke(ticket.is_new_break(error));
                    tracker.set_flags("UC");
                    tracker.cut();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Local(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream(observed) => Pin::new(&mut **observed).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(bytes) => bytes.is_none(),
            Self::Upstream(observed) => observed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Upstream(observed) => observed.size_hint(),
        }
    }
}
