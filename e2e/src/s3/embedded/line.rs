//! One request on its connection: its fault cuts the bodies, closes the connection, or leaves both alone.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
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
    let (parts, incoming) = request.into_parts();
    let incoming = Shared(Arc::new(Mutex::new(incoming)));
    let body = Body::http_body_unsync(Cut {
        inner: incoming.clone(),
        line: line.clone(),
        sends: false,
        over: false,
        flushed: false,
    });
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(line.clone());
    let mut response = service.call(request).await?;
    if line.closes.load(Ordering::SeqCst) {
        return Err(HttpError::new(
            "the connection is closed by an injected fault".into(),
        ));
    }
    // An answer before the end of the request would be lost with the connection, which is closed then.
    let mut rest = incoming;
    while let Some(Ok(_)) = rest.frame().await {}
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
            flushed: false,
        })
    }))
}

/// A request's body, which is still there when the service has dropped it.
#[derive(Clone)]
struct Shared(Arc<Mutex<Incoming>>);

impl Shared {
    fn with<T>(&self, look: impl FnOnce(&mut Incoming) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.with(|incoming| Pin::new(incoming).poll_frame(cx))
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|incoming| incoming.size_hint())
    }

    fn is_end_stream(&self) -> bool {
        self.with(|incoming| incoming.is_end_stream())
    }
}

/// A body that ends where the fault says.
struct Cut<B> {
    inner: B,
    line: Arc<Line>,
    /// Towards the client.
    sends: bool,
    over: bool,
    flushed: bool,
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
        if this.over && this.sends && !this.flushed {
            // What was sent so far goes out before the connection is closed.
            this.flushed = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
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
