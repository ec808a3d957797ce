//! One request on its connection: its fault cuts the bodies, closes the connection, or leaves both alone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use s3s::service::S3Service;
use s3s::{Body, HttpError};

use super::faults::Line;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

static REQUESTS: AtomicU64 = AtomicU64::new(1);

pub(super) async fn handle(
    service: S3Service,
    request: Request<Incoming>,
) -> Result<Response<Body>, HttpError> {
    let line = Arc::new(Line::default());
    let mut request = request.map(|inner| {
        Body::http_body_unsync(Cut {
            inner,
            line: line.clone(),
            sends: false,
            over: false,
        })
    });
    request.extensions_mut().insert(line.clone());
    let mut response = service.call(request).await?;
    if line.closes.load(Ordering::SeqCst) {
        return Err(HttpError::new(
            "the connection is closed by an injected fault".into(),
        ));
    }
    let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
    response
        .headers_mut()
        .insert("x-amz-request-id", HeaderValue::from(number));
    if line.left.load(Ordering::SeqCst) == u64::MAX {
        return Ok(response);
    }
    Ok(response.map(|inner| {
        Body::http_body_unsync(Cut {
            inner,
            line,
            sends: true,
            over: false,
        })
    }))
}

/// A body that ends where the fault says.
struct Cut<B> {
    inner: B,
    line: Arc<Line>,
    /// Towards the client.
    sends: bool,
    over: bool,
}

impl<B> HttpBody for Cut<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<AnyError>,
{
    type Data = Bytes;
    type Error = AnyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnyError>>> {
        let this = self.get_mut();
        if this.over {
            let cut = "the body is cut by an injected fault";
            return Poll::Ready((!this.line.truncates.load(Ordering::SeqCst)).then(|| Err(cut.into())));
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => frame,
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => return Poll::Ready(Some(Ok(other))),
        };
        let (passed, last) = this.line.pass(data.len() as u64);
        if last {
            this.over = true;
            // A broken upload is not answered.
            if !this.sends {
                this.line.closes.store(true, Ordering::SeqCst);
            }
        }
        let passed = usize::try_from(passed).unwrap_or(data.len());
        Poll::Ready(Some(Ok(Frame::data(data.slice(..passed)))))
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        !self.over && self.inner.is_end_stream()
    }
}
