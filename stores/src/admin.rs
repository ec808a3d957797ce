//! The small HTTP servers of every program: health, metrics, status.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::mutual_tls::Reloading;

/// Connections of one server at a time.
const CONNECTIONS: usize = 64;

/// A request's head must be there by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that may wait to be accepted.
const WAITING: u32 = 1024;

/// Binds an address; `[::]` is every address of the machine, of both families as far as it has them. `option` is the one
/// that gave it.
///
/// # Errors
/// With what to do.
pub async fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, io::Error> {
    let bound = listen(address).or_else(|error| match instead(address, error.kind()) {
        Some(other) => listen(other).map_err(|_| error),
        None => Err(error),
    });
    bound.map_err(|error| {
        let message = format!("cannot listen on {address} ({error}); give another address with {option}");
        io::Error::new(error.kind(), message)
    })
}

/// What to listen on where this address cannot be had: a machine without IPv6 has no `[::]`, but addresses all the same.
fn instead(address: SocketAddr, error: io::ErrorKind) -> Option<SocketAddr> {
    let is_there = matches!(error, io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
    let is_all = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    (is_all && !is_there).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

fn listen(address: SocketAddr) -> Result<TcpListener, io::Error> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    if address.is_ipv6() {
        // The machine's default may be another.
        SockRef::from(&socket).set_only_v6(false)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

/// Answers every request with `answer`, until cancelled. With `tls` only clients with a certificate of its authority are
/// heard, and nobody while there are no certificates.
pub async fn serve<A, F>(
    listener: TcpListener,
    tls: Option<Arc<Reloading>>,
    answer: A,
    cancel: CancellationToken,
) where
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let answer = Arc::new(answer);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: others must end before this can go on.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (answer, cancel) = (answer.clone(), cancel.clone());
        let acceptor = match tls.as_ref().map(|tls| tls.config()) {
            None => None,
            Some(Some(config)) => Some(TlsAcceptor::from(config)),
            Some(None) => continue,
        };
        tokio::spawn(async move {
            let _place = place;
            let connection = async {
                match acceptor {
                    None => talk(stream, answer).await,
                    Some(acceptor) => match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => talk(stream, answer).await,
                        Ok(Err(error)) => tracing::debug!("a client without a good certificate: {error}"),
                        Err(_) => {}
                    },
                }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = connection => {}
            }
        });
    }
}

/// Answers the requests of one connection.
async fn talk<S, A, F>(stream: S, answer: Arc<A>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    A: Fn(Request<Incoming>) -> F + Send + Sync,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let service = service_fn(move |request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    // The client went, or said what is no HTTP.
    let _ = connection.await;
}

/// An answer of plain text.
#[must_use]
pub fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    with_type(status, "text/plain", body.as_bytes().to_vec())
}

/// An answer.
#[must_use]
pub fn with_type(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn a_machine_without_ipv6_listens_on_its_other_addresses_and_nobody_shares_a_port() {
        let instead = |address: &str, error| instead(address.parse().unwrap(), error);
        // What socket() and bind() say there.
        for error in [97, 99].map(|code| io::Error::from_raw_os_error(code).kind()) {
            assert_eq!(
                instead("[::]:9180", error),
                Some("0.0.0.0:9180".parse().unwrap()),
                "{error}"
            );
            assert_eq!(instead("[::1]:9180", error), None);
            assert_eq!(instead("10.0.0.1:9180", error), None);
        }
        assert_eq!(instead("[::]:9180", io::ErrorKind::AddrInUse), None);
    }

    #[tokio::test]
    async fn a_listener_of_all_addresses_is_for_both_families_and_of_a_port_of_its_own() {
        let listener = bind("[::]:0".parse().unwrap(), "--listen").await.unwrap();
        let address = listener.local_addr().unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, address.port()))
            .await
            .unwrap();
        if listen((Ipv6Addr::LOCALHOST, 0).into()).is_ok() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, address.port()))
                .await
                .unwrap();
        }
        let error = bind(address, "--listen").await.unwrap_err().to_string();
        assert!(error.contains("another address with --listen"), "{error}");
    }
}
