//! A replica's answer on its way to the client, piece by piece as it comes. Counts the request until it ends, and finds
//! the name of what was made in it.

use crate::{headers, kept::Naming, replica::Hold, shared::Shared};
use axum::{
    body::{Body, Bytes},
    http::Response,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// An answer that goes on as it comes. Dropping it, as when the client has gone, ends the request at the replica.
pub(crate) fn passed_on(
    answer: Response<Incoming>,
    hold: Hold,
    shared: Arc<Shared>,
    naming: Option<Naming>,
) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    head.headers = headers::back(head.headers);
    // The version is the connection's.
    head.version = axum::http::Version::HTTP_11;
    head.extensions.clear();
    let naming = naming.filter(|_| head.status.is_success());
    Response::from_parts(head, Body::new(Passed { body, hold, shared, naming }))
}

/// A body under way.
struct Passed {
    body: Incoming,
    hold: Hold,
    shared: Arc<Shared>,
    naming: Option<Naming>,
}

impl HttpBody for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let frame = Pin::new(&mut this.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(naming), Some(data)) = (&mut this.naming, frame.data_ref())
                    && let Some(id) = naming.piece(data)
                {
                    this.shared.keep(id, &this.hold.replica().address);
                }
            }
            // A part has gone out: the client learns of it by an answer that is cut off, and nobody is asked again.
            Poll::Ready(Some(Err(_))) => this.hold.replica().suspect(),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
