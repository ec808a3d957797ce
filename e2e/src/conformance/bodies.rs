//! Bodies arrive whole or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::{StreamExt, stream};
use md5::{Digest, Md5};
use onespace_stores::body::{Body, BodyError};
use onespace_stores::remote::{Condition, PartSource, PartSpec, Remote, RemoteError};
use onespace_stores::source::SourceError;

use super::{get, no_headers, put, read};

const MIB: usize = 1024 * 1024;

pub(super) async fn an_empty_body_round_trips<R: Remote>(remote: &R) -> Result<()> {
    round_trip(remote, "bodies/empty", b"").await
}

pub(super) async fn one_byte_round_trips<R: Remote>(remote: &R) -> Result<()> {
    round_trip(remote, "bodies/one", b"1").await
}

async fn round_trip<R: Remote>(remote: &R, key: &str, body: &'static [u8]) -> Result<()> {
    let md5: [u8; 16] = Md5::digest(body).into();
    let stored = remote
        .put(
            key,
            &no_headers(),
            &Condition::None,
            Body::from_bytes(Bytes::from_static(body)),
            Some(md5),
        )
        .await?;
    ensure!(stored.etag == hex::encode(md5), "ETag {}", stored.etag);
    ensure!(stored.sent_etag == stored.etag, "sent {}", stored.sent_etag);
    let seen = remote.head(key).await?.context("HEAD finds nothing")?;
    ensure!(
        (seen.etag.as_str(), seen.size) == (stored.etag.as_str(), body.len() as u64),
        "{seen:?}"
    );
    ensure!(
        get(remote, key).await?.as_deref() == Some(body),
        "another body came back"
    );
    Ok(())
}

/// Parts of different letters: a part in the wrong place is seen.
pub(super) struct Letters(pub Vec<usize>);

impl Letters {
    pub fn body(&self, part: usize) -> Bytes {
        let letter = b'a' + u8::try_from(part % 26).unwrap_or(0);
        Bytes::from(vec![letter; self.0.get(part).copied().unwrap_or(0)])
    }

    pub fn whole(&self) -> Vec<u8> {
        (0..self.0.len()).flat_map(|part| self.body(part)).collect()
    }

    pub fn specs(&self) -> Vec<PartSpec> {
        let spec = |part| PartSpec {
            length: self.body(part).len() as u64,
            md5: Some(Md5::digest(self.body(part)).into()),
        };
        (0..self.0.len()).map(spec).collect()
    }

    pub fn etag(&self) -> String {
        let digests: Vec<u8> = (0..self.0.len())
            .flat_map(|part| Md5::digest(self.body(part)))
            .collect();
        format!("{}-{}", hex::encode(Md5::digest(digests)), self.0.len())
    }
}

impl PartSource for Letters {
    async fn open(&self, part: usize) -> Result<Body, SourceError> {
        Ok(Body::from_bytes(self.body(part)))
    }
}

pub(super) async fn three_parts_round_trip_under_the_etag_of_their_md5s<R: Remote>(remote: &R) -> Result<()> {
    let parts = Letters(vec![5 * MIB, 5 * MIB, 1]);
    let key = "bodies/parts";
    let stored = remote
        .put_parts(key, &no_headers(), &Condition::None, &parts.specs(), &parts)
        .await?;
    ensure!(
        stored.etag == parts.etag() && stored.sent_etag == stored.etag,
        "{stored:?}"
    );
    let seen = remote.head(key).await?.context("HEAD finds nothing")?;
    ensure!(seen.etag == stored.etag, "HEAD says {}", seen.etag);
    ensure!(
        get(remote, key).await? == Some(parts.whole()),
        "another body came back"
    );
    Ok(())
}

pub(super) async fn a_range_is_exactly_that_range<R: Remote>(remote: &R) -> Result<()> {
    let key = "bodies/range";
    put(remote, key, b"0123456789").await?;
    for (first, last, expected) in [(0, 0, "0"), (3, 5, "345"), (9, 9, "9"), (0, 9, "0123456789")] {
        let (object, body) = remote
            .get(key, Some((first, last)))
            .await?
            .context("nothing there")?;
        ensure!(object.size == 10, "size {} of the whole", object.size);
        ensure!(
            read(body).await? == expected.as_bytes(),
            "range {first} to {last}"
        );
    }
    Ok(())
}

pub(super) async fn a_body_with_another_md5_than_announced_is_not_stored<R: Remote>(
    remote: &R,
) -> Result<()> {
    let key = "bodies/other-md5";
    let body = Body::from_bytes(Bytes::from_static(b"this"));
    let wrong: [u8; 16] = Md5::digest(b"that").into();
    match remote
        .put(key, &no_headers(), &Condition::None, body, Some(wrong))
        .await
    {
        Err(RemoteError::Body(BodyError::Mismatch { .. })) => {}
        other => bail!("{other:?}"),
    }
    gone_soon(remote, key, 4).await
}

/// A body that breaks off half way.
fn broken(length: usize) -> Body {
    const CHUNK: usize = 64 * 1024;
    let received = (length / 2) as u64;
    let whole = stream::iter(0..length / 2 / CHUNK).map(|_| Ok(Bytes::from_static(&[b'x'; CHUNK])));
    let error = BodyError::BrokenOff {
        received,
        length: length as u64,
        cause: "test".into(),
    };
    Body {
        length: length as u64,
        stream: whole.chain(stream::iter([Err(error)])).boxed(),
    }
}

/// More than any server holds back in a buffer.
const BROKEN: usize = 32 * MIB;

pub(super) async fn a_body_that_breaks_off_is_an_error_and_no_whole_object<R: Remote>(
    remote: &R,
) -> Result<()> {
    let key = "bodies/broken";
    match remote
        .put(key, &no_headers(), &Condition::None, broken(BROKEN), None)
        .await
    {
        Err(RemoteError::Body(BodyError::BrokenOff { .. })) => {}
        other => bail!("{other:?}"),
    }
    let seen = remote.head(key).await?;
    ensure!(
        seen.as_ref().is_none_or(|object| object.size < BROKEN as u64),
        "{seen:?}"
    );
    Ok(())
}

pub(super) async fn a_body_that_breaks_off_leaves_nothing<R: Remote>(remote: &R) -> Result<()> {
    let key = "bodies/broken-leaves";
    let _ = remote
        .put(key, &no_headers(), &Condition::None, broken(BROKEN), None)
        .await;
    gone_soon(remote, key, BROKEN as u64 / 2).await
}

/// The server may notice the broken connection a moment later.
async fn gone_soon<R: Remote>(remote: &R, key: &str, short: u64) -> Result<()> {
    for _ in 0..20 {
        if let Some(object) = remote.head(key).await? {
            bail!(
                "an object of {} bytes is there (sent were at most {short})",
                object.size
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub(super) async fn a_body_that_breaks_off_leaves_the_object_that_was_there<R: Remote>(
    remote: &R,
) -> Result<()> {
    let key = "bodies/broken-over";
    put(remote, key, b"before").await?;
    let _ = remote
        .put(key, &no_headers(), &Condition::None, broken(BROKEN), None)
        .await;
    for _ in 0..20 {
        let there = get(remote, key).await?;
        ensure!(
            there.as_deref() == Some(b"before"),
            "{:?} bytes are there",
            there.map(|body| body.len())
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The second part breaks off, however often it is opened.
struct Breaking(Letters);

impl PartSource for Breaking {
    async fn open(&self, part: usize) -> Result<Body, SourceError> {
        Ok(if part == 1 {
            broken(self.0.body(1).len())
        } else {
            Body::from_bytes(self.0.body(part))
        })
    }
}

pub(super) async fn a_part_that_breaks_off_for_good_leaves_nothing<R: Remote>(remote: &R) -> Result<()> {
    let key = "bodies/broken-part";
    let parts = Breaking(Letters(vec![5 * MIB, MIB]));
    match remote
        .put_parts(key, &no_headers(), &Condition::None, &parts.0.specs(), &parts)
        .await
    {
        Err(RemoteError::Body(BodyError::BrokenOff { .. })) => {}
        other => bail!("{other:?}"),
    }
    gone_soon(remote, key, 0).await
}

/// Bytes that know how many of their kind are alive.
struct Counted {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}

pub(super) async fn a_large_body_is_never_in_memory<R: Remote>(remote: &R) -> Result<()> {
    const CHUNK: usize = 64 * 1024;
    const CHUNKS: usize = 96 * MIB / CHUNK;
    let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (alive.clone(), most.clone());
    let chunks = stream::iter(0..CHUNKS).map(move |_| {
        let bytes = vec![b'm'; CHUNK];
        peak.fetch_max(now.fetch_add(CHUNK, Ordering::SeqCst) + CHUNK, Ordering::SeqCst);
        Ok(Bytes::from_owner(Counted {
            bytes,
            alive: now.clone(),
        }))
    });
    let length = (CHUNKS * CHUNK) as u64;
    let key = "bodies/large";
    let body = Body {
        length,
        stream: chunks.boxed(),
    };
    remote
        .put(key, &no_headers(), &Condition::None, body, None)
        .await?;
    let most = most.load(Ordering::SeqCst);
    ensure!(most <= MIB, "{most} bytes of the upload were in memory at once");

    // Read back chunk by chunk: none may be larger than a buffer of the connection.
    let (_, body) = remote.get(key, None).await?.context("nothing there")?;
    let mut stream = body.stream;
    let (mut received, mut largest) = (0, 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        received += chunk.len() as u64;
        largest = largest.max(chunk.len());
    }
    ensure!(received == length, "{received} bytes came back");
    ensure!(largest <= MIB, "a chunk of {largest} bytes");
    remote.delete(key, None).await?;
    Ok(())
}
