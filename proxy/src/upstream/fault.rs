//! What went wrong before there was an answer, and what follows from it.

use std::{error::Error, io};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection; the request was not sent.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The other end did not process the request and said so, or it never left: any request may
    /// be sent again.
    #[error("the request was not processed")]
    Unprocessed,
    /// A connection that had been idle died before the first byte of the answer. Nobody's
    /// failure when the request may be sent again; else it is lost.
    #[error("a reused connection was closed")]
    Stale,
    /// The connection, or the stream alone, broke.
    #[error("the connection broke before the answer")]
    Reset {
        /// False for streams that broke with a connection for which this was said already.
        first: bool,
    },
}

/// What an error of hyper's says of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// It was not processed.
    Unprocessed,
    /// The stream alone broke.
    Stream,
    /// The connection broke.
    Connection,
}

/// RFC 9113, 8.7: REFUSED_STREAM, and a GOAWAY with a smaller last stream, say that nothing was
/// processed.
pub(super) fn read(error: &hyper::Error) -> Reading {
    let Some(h2) = find::<h2::Error>(error) else {
        return Reading::Connection;
    };
    if h2.is_go_away() && h2.is_remote() || h2.reason() == Some(h2::Reason::REFUSED_STREAM) {
        return Reading::Unprocessed;
    }
    if h2.is_reset() {
        return Reading::Stream;
    }
    Reading::Connection
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
