//! Large objects: one multipart upload whose parts are the segments, and the manifest beside it, written
//! after the object and only counted together with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use onespace_core::manifest::{Extent, Flatten, Manifest, SegmentExtent, flatten};
use onespace_core::mark::Mark;
use onespace_core::parts::{self, PlannedPart};
use onespace_core::plan::copy::{Expected, Look, Step, after_read};
use onespace_core::plan::{Done, Held, Stop};
use onespace_core::reason::HoldReason;
use onespace_core::remote::{RemoteHeaders, RemoteObject};
use onespace_core::row::RowKind;
use onespace_stores::body::{Body, BodyError};
use onespace_stores::remote::{PartSource, PartSpec, Remote};
use onespace_stores::source::{Answer, ObjectPath, Read, Source, SourceError};

use crate::clock::Clock;
use crate::copy::{Attempt, Found, Job, collect, md5_of};
use crate::stop::{from_remote, from_source};
use crate::work::Work;

/// Metadata of a manifest object: the ETag of the object that it describes.
const OBJECT_ETAG: &str = "onespace-object-etag";

/// How many nested manifests one object may have.
const NESTED: usize = 1000;

/// A manifest as it is stored beside the object.
pub(crate) struct Stored {
    /// Its bytes.
    pub body: Bytes,
    /// Their md5.
    pub etag: String,
}

impl<S: Source + 'static, R: Remote, C: Clock> Work<S, R, C> {
    /// Brings a static large object and its manifest in step.
    pub(crate) async fn copy_large(
        &self,
        job: &Job<'_>,
        look: &Look,
        found: &Found,
    ) -> Result<Done, Attempt> {
        let json = self.manifest(&found.path, Some(&found.object.etag)).await?;
        let plan = self.plan_large(&found.path.account, &json).await?;
        let manifest = Stored {
            body: json,
            etag: found.object.etag.clone(),
        };
        self.store_large(job, look, found, &plan, &manifest).await
    }

    /// Brings an object of these parts and its manifest in step.
    pub(crate) async fn store_large(
        &self,
        job: &Job<'_>,
        look: &Look,
        found: &Found,
        plan: &LargePlan,
        manifest: &Stored,
    ) -> Result<Done, Attempt> {
        let headers = self.headers(job, found)?;
        let expected = Expected {
            etag: plan.etag.as_deref(),
            source_etag: &found.object.etag,
            size: plan.length,
            linked: matches!(job.row.kind, RowKind::Symlink { .. }),
        };
        let (etag, done) = match after_read(look, found.times, expected, &headers, self.limits.slack) {
            Step::Hold(held) => return Err(held.into()),
            Step::InStep => (None, Done::InStep),
            Step::Adopt => (None, self.adopt(job, look).await?),
            Step::Repost => match self.repost(job, look, &headers).await? {
                Some(etag) => (Some(etag), Done::Reposted),
                None => (
                    Some(self.send_large(job, look, &headers, plan, found).await?),
                    plan.done(),
                ),
            },
            Step::Send => (
                Some(self.send_large(job, look, &headers, plan, found).await?),
                plan.done(),
            ),
        };
        let etag = etag
            .or_else(|| look.object.as_ref().map(|object| object.etag.clone()))
            .unwrap_or_default();
        let manifest_written = self
            .keep_manifest(job, found, manifest, &etag, plan.etag.as_deref())
            .await?;
        Ok(if manifest_written && done == Done::InStep {
            Done::Reposted
        } else {
            done
        })
    }

    async fn send_large(
        &self,
        job: &Job<'_>,
        look: &Look,
        headers: &RemoteHeaders,
        plan: &LargePlan,
        found: &Found,
    ) -> Result<String, Attempt> {
        let condition = self.condition(look);
        if plan.parts.is_empty() {
            let empty = Body::from_bytes(Bytes::new());
            return Ok(self
                .remote
                .put(&job.key, headers, &condition, empty, None)
                .await?
                .etag);
        }
        let specs: Vec<_> = plan
            .parts
            .iter()
            .map(|part| PartSpec {
                length: part.length,
                md5: part.md5,
            })
            .collect();
        let source = Segments {
            source: self.source.clone(),
            account: found.path.account.clone(),
            parts: plan.parts.clone(),
        };
        Ok(self
            .remote
            .put_parts(&job.key, headers, &condition, &specs, &source)
            .await?
            .etag)
    }

    /// Reads a manifest as Swift stores it.
    async fn manifest(&self, path: &ObjectPath, etag: Option<&str>) -> Result<Bytes, Stop> {
        let read = Read {
            newest: true,
            ..Read::default()
        };
        let (object, body) = match self
            .source
            .get(path, &read)
            .await
            .map_err(|error| from_source(&error))?
        {
            Answer::Found(found) => found,
            Answer::Absent(_) | Answer::Changed => {
                return Err(mismatch(format!(
                    "the manifest {path} is not there; it is looked for again"
                )));
            }
        };
        if !object.static_large_object {
            return Err(mismatch(format!(
                "{path} is no manifest any more; it is looked at again"
            )));
        }
        if etag.is_some_and(|etag| etag != object.etag) {
            return Err(Held::new(
                HoldReason::ChangedMeanwhile,
                "the manifest changed; it is read again",
            )
            .into());
        }
        if object.size > self.limits.manifest {
            let message = format!(
                "the manifest has {} bytes, more than the {} that are read",
                object.size, self.limits.manifest
            );
            return Err(Held::new(HoldReason::InvalidManifest, message).into());
        }
        Ok(collect(Some(body), object.size).await?)
    }

    async fn plan_large(&self, account: &str, json: &[u8]) -> Result<LargePlan, Stop> {
        let invalid = |what: String| Stop::from(Held::new(HoldReason::InvalidManifest, what));
        let top = Manifest::parse(account, json).map_err(|error| invalid(error.to_string()))?;
        let mut nested = BTreeMap::new();
        let extents = loop {
            match flatten(&top, &nested) {
                Ok(extents) => break extents,
                Err(Flatten::Needs(container, object)) if nested.len() < NESTED => {
                    let path = ObjectPath {
                        account: account.to_owned(),
                        container,
                        object,
                    };
                    let json = self.manifest(&path, None).await?;
                    let manifest =
                        Manifest::parse(account, &json).map_err(|error| invalid(error.to_string()))?;
                    nested.insert((path.container, path.object), manifest);
                }
                Err(Flatten::Needs(..)) => {
                    return Err(invalid(format!(
                        "it has more than {NESTED} nested manifests; write it with fewer"
                    )));
                }
                Err(error) => return Err(invalid(error.to_string())),
            }
        };
        Ok(self.plan_parts(&extents)?)
    }

    /// How these bytes are uploaded.
    pub(crate) fn plan_parts(&self, extents: &[Extent]) -> Result<LargePlan, Held> {
        let planned = parts::plan(extents, self.mapping.min_segment_size)
            .map_err(|error| Held::new(HoldReason::TooLarge, error.to_string()))?;
        Ok(LargePlan {
            length: planned.iter().map(|part| part.length).sum(),
            etag: parts::expected_etag(&planned),
            parts: planned,
        })
    }

    /// Writes the manifest beside the object unless it is there already; returns whether it was written. One that
    /// 1space wrote has no ETag of its object: it counts if the object's ETag follows from it.
    async fn keep_manifest(
        &self,
        job: &Job<'_>,
        found: &Found,
        manifest: &Stored,
        object_etag: &str,
        expected_etag: Option<&str>,
    ) -> Result<bool, Attempt> {
        let key = job.namespace.manifest_key(&job.row.name);
        let there = self.remote.head(&key).await.map_err(from_remote)?;
        let counts = there.as_ref().is_some_and(|there| {
            let describes = match there.headers.metadata.get(OBJECT_ETAG) {
                Some(etag) => etag == object_etag,
                None => expected_etag == Some(object_etag),
            };
            describes && holds(there, &manifest.etag) && there.size == manifest.body.len() as u64
        });
        if counts {
            return Ok(false);
        }
        let mut headers = RemoteHeaders {
            content_type: Some("application/json".into()),
            ..RemoteHeaders::default()
        };
        headers
            .metadata
            .insert(OBJECT_ETAG.into(), object_etag.to_owned());
        self.mark(job.source.clone(), found.times, &manifest.etag, None)
            .write(&mut headers.metadata);
        let body = Body::from_bytes(manifest.body.clone());
        let condition = onespace_stores::remote::Condition::None;
        self.remote
            .put(&key, &headers, &condition, body, md5_of(&manifest.etag))
            .await?;
        Ok(true)
    }
}

/// Whether a manifest object holds the manifest with this ETag; under KMS only its mark can tell.
fn holds(manifest: &RemoteObject, etag: &str) -> bool {
    if !manifest.opaque_etag {
        return manifest.etag == etag;
    }
    matches!(Mark::read(&manifest.headers.metadata), Some(Ok(mark)) if mark.etag == etag)
}

pub(crate) fn mismatch(what: String) -> Stop {
    Held::new(HoldReason::SegmentMismatch, what).into()
}

/// How a large object is uploaded.
pub(crate) struct LargePlan {
    parts: Vec<PlannedPart>,
    /// Its length in bytes.
    pub length: u64,
    etag: Option<String>,
}

impl LargePlan {
    fn done(&self) -> Done {
        Done::Copied { bytes: self.length }
    }
}

/// The bytes of parts, read from their segments.
struct Segments<S> {
    source: Arc<S>,
    account: String,
    parts: Vec<PlannedPart>,
}

impl<S: Source + 'static> PartSource for Segments<S> {
    async fn open(&self, part: usize) -> Result<Body, SourceError> {
        let extents = self
            .parts
            .get(part)
            .map(|part| part.extents.clone())
            .unwrap_or_default();
        let length = extents.iter().map(Extent::length).sum();
        let mut rest = extents.into_iter();
        let Some(first) = rest.next() else {
            return Ok(Body::from_bytes(Bytes::new()));
        };
        // The first segment is opened at once, so that one that is missing is not mistaken for a broken connection.
        let first = read_extent(&*self.source, &self.account, &first).await?;
        let (source, account) = (self.source.clone(), self.account.clone());
        let others = futures::stream::iter(rest).then(move |extent| {
            let (source, account) = (source.clone(), account.clone());
            async move {
                let body = read_extent(&*source, &account, &extent).await;
                body.map(|body| body.stream)
                    .map_err(|error| BodyError::BrokenOff {
                        received: 0,
                        length: extent.length(),
                        cause: error.to_string(),
                    })
            }
        });
        let stream = first.stream.chain(others.try_flatten());
        Ok(Body {
            length,
            stream: Box::pin(stream),
        })
    }
}

async fn read_extent<S: Source>(source: &S, account: &str, extent: &Extent) -> Result<Body, SourceError> {
    let segment = match extent {
        Extent::Inline(inline) => return Ok(Body::from_bytes(Bytes::copy_from_slice(inline.bytes()))),
        Extent::Segment(segment) => segment,
    };
    let SegmentExtent {
        container,
        object,
        etag,
        first,
        length,
        whole,
    } = segment;
    let path = ObjectPath {
        account: account.to_owned(),
        container: container.clone(),
        object: object.clone(),
    };
    let range = (!whole).then(|| (*first, first + length.saturating_sub(1)));
    let mut what = String::new();
    // A server that is behind is passed over at the second try, when all replicas are asked.
    for newest in [false, true] {
        let read = Read {
            range,
            newest,
            ..Read::default()
        };
        what = match source.get(&path, &read).await? {
            Answer::Found((found, _)) if found.undecrypted => "it is ciphertext".to_owned(),
            Answer::Found((found, _)) if etag.as_ref().is_some_and(|etag| *etag != found.etag) => {
                "it is not the segment that the manifest names".to_owned()
            }
            Answer::Found((_, body)) if body.length != *length => {
                "it is shorter than the manifest says".to_owned()
            }
            Answer::Found((_, body)) => return Ok(body),
            Answer::Absent(_) | Answer::Changed => "the segment is not there".to_owned(),
        };
    }
    Err(SourceError::Mismatch { object: path, what })
}
