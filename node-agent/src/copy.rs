//! Bringing one name of the remote in step with Swift.

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use onespace_core::local::SwiftObject;
use onespace_core::metadata;
use onespace_core::naming::Namespace;
use onespace_core::parts;
use onespace_core::plan::copy::{
    Ask, Expected, Look, Step, Times, Trust, after_look, after_read, after_repost, is_dynamic, may_go_unseen,
};
use onespace_core::plan::{Done, Held, Stop};
use onespace_core::reason::HoldReason;
use onespace_core::remote::{RemoteHeaders, RemoteObject};
use onespace_core::row::{Row, RowKind};
use onespace_stores::body::Body;
use onespace_stores::remote::{Condition, PartSource, PartSpec, Remote, RemoteError, Replaced};
use onespace_stores::source::{Answer, ObjectPath, Read, Source, SourceError};

use crate::clock::Clock;
use crate::read::{Subject, Want};
use crate::stop::{from_remote, from_state};
use crate::work::Work;

/// How often a name is looked at again within one try when others write to it at the same time.
const LOOKS: usize = 3;

/// S3 takes no more than this in one request.
const LARGEST_PUT: u64 = 5 << 30;

/// One row's copy: where it comes from and where it goes.
pub(crate) struct Job<'a> {
    pub container: &'a str,
    pub row: &'a Row,
    pub namespace: Namespace,
    pub key: String,
    pub source: String,
}

/// An object of Swift that is to be stored.
pub(crate) struct Found {
    pub path: ObjectPath,
    pub object: Box<SwiftObject>,
    pub times: Times,
}

impl<S: Source + 'static, R: Remote, C: Clock> Work<S, R, C> {
    /// Brings a live row's name in step.
    ///
    /// # Errors
    /// [`Stop`]: the row waits, or the mapping pauses.
    pub async fn copy(&self, container: &str, row: &Row, trust: Trust) -> Result<Copied, Stop> {
        let job = self.job(container, row)?;
        if !self.capabilities.holds(&job.key) {
            return Err(folded().into());
        }
        if !may_go_unseen(row, trust, self.capabilities.put_if_absent, self.limits.replay) {
            return self.look_and_copy(&job, trust, None).await;
        }
        let Some((found, body)) = self.find(&job, Want::Body, false).await? else {
            return Ok(Done::Superseded.into());
        };
        if found.object.is_large() || found.object.size > self.limits.replay {
            return self.look_and_copy(&job, trust, None).await;
        }
        if !self.selector.by_metadata(&found.object) {
            return Ok(Done::LeftAlone.into());
        }
        let headers = self.headers(&job, &found)?;
        let bytes = collect(body, found.object.size).await?;
        match self
            .send_bytes(&job, &found, &headers, &Condition::Absent, bytes.clone())
            .await
        {
            Ok(done) => Ok(done.into()),
            Err(RemoteError::ConditionFailed) => self.look_and_copy(&job, trust, Some((found, bytes))).await,
            Err(error) => Err(from_remote(error)),
        }
    }

    pub(crate) fn job<'a>(&self, container: &'a str, row: &'a Row) -> Result<Job<'a>, Held> {
        let namespace = self.namespace(container);
        let key = namespace
            .object_key(&row.name)
            .map_err(|reason| Held::new(reason, name_refused(reason)))?;
        Ok(Job {
            container,
            row,
            key,
            source: self.source_hash(container, &row.name),
            namespace,
        })
    }

    pub(crate) async fn look(&self, job: &Job<'_>) -> Result<Look, Stop> {
        let object = self.remote.head(&job.key).await.map_err(from_remote)?;
        Ok(Look::read(object, &job.source)?)
    }

    pub(crate) async fn find(
        &self,
        job: &Job<'_>,
        want: Want,
        newest: bool,
    ) -> Result<Option<(Found, Option<Body>)>, Stop> {
        match self.read(job.container, job.row, want, newest).await? {
            Subject::Gone => Ok(None),
            Subject::Object {
                path,
                object,
                times,
                body,
            } => Ok(Some((Found { path, object, times }, body))),
        }
    }

    pub(crate) fn headers(&self, job: &Job<'_>, found: &Found) -> Result<RemoteHeaders, Held> {
        let mark = self.mark(
            job.source.clone(),
            found.times,
            &found.object.etag,
            found.object.delete_at,
        );
        metadata::to_remote(&found.object, &mark).map_err(|error| Held::new(error.reason, error.to_string()))
    }

    /// The condition that lets a write replace exactly what was looked at, as far as the remote has conditions.
    pub(crate) fn condition(&self, look: &Look) -> Condition {
        match &look.object {
            None if self.capabilities.put_if_absent => Condition::Absent,
            Some(object) if self.capabilities.put_if_match => Condition::Matches(object.etag.clone()),
            _ => Condition::None,
        }
    }

    async fn look_and_copy(
        &self,
        job: &Job<'_>,
        trust: Trust,
        mut kept: Option<(Found, Bytes)>,
    ) -> Result<Copied, Stop> {
        for _ in 0..LOOKS {
            let look = self.look(job).await?;
            let (found, body) = match kept.take() {
                Some((found, bytes)) => (found, Some(Body::from_bytes(bytes))),
                None => {
                    let is_large = matches!(job.row.kind, RowKind::StaticLarge { .. });
                    let want = match after_look(job.row, &look) {
                        Ask::Nothing if !is_large && trust != Trust::Doubted => {
                            return Ok(Done::InStep.into());
                        }
                        Ask::Body if !is_large => Want::Body,
                        _ => Want::Headers,
                    };
                    let Some(found) = self.find(job, want, true).await? else {
                        return Ok(Done::Superseded.into());
                    };
                    found
                }
            };
            if !self.selector.by_metadata(&found.object) {
                return Ok(Done::LeftAlone.into());
            }
            let dynamic = found.object.object_manifest.as_deref();
            let result = if found.object.static_large_object {
                drop(body);
                self.copy_large(job, &look, &found).await
            } else if let Some(manifest) = dynamic {
                drop(body);
                self.copy_dynamic(job, &look, &found, manifest).await
            } else {
                self.copy_plain(job, &look, &found, body).await
            };
            match result {
                Err(Attempt::LookAgain) => {}
                Err(Attempt::Stop(stop)) => return Err(stop),
                Ok(done) => {
                    return Ok(Copied {
                        done,
                        may_change_unseen: found.object.is_dynamic(),
                    });
                }
            }
        }
        Err(Held::new(
            HoldReason::ChangedMeanwhile,
            "others write to this key all the time; it is tried again",
        )
        .into())
    }

    async fn copy_plain(
        &self,
        job: &Job<'_>,
        look: &Look,
        found: &Found,
        body: Option<Body>,
    ) -> Result<Done, Attempt> {
        let headers = self.headers(job, found)?;
        let expected = Expected {
            etag: Some(&found.object.etag),
            source_etag: &found.object.etag,
            size: found.object.size,
            linked: matches!(job.row.kind, RowKind::Symlink { .. }),
        };
        match after_read(look, found.times, expected, &headers, self.limits.slack) {
            Step::InStep => return Ok(Done::InStep),
            Step::Adopt => return self.adopt(job, look).await,
            Step::Hold(held) => return Err(held.into()),
            Step::Repost => {
                if self.repost(job, look, &headers).await?.is_some() {
                    self.forget_manifest(job, look).await?;
                    return Ok(Done::Reposted);
                }
            }
            Step::Send => {}
        }
        let body = match body {
            Some(body) => body,
            None => match self.find(job, Want::Body, true).await? {
                None => return Ok(Done::Superseded),
                Some((Found { object, times, .. }, Some(body)))
                    if (times, &object.etag) == (found.times, &found.object.etag) =>
                {
                    body
                }
                Some(_) => return Err(Attempt::LookAgain),
            },
        };
        let condition = self.condition(look);
        let bytes = found.object.size;
        if bytes > LARGEST_PUT {
            drop(body);
            self.send_in_parts(job, found, &headers, &condition).await?;
        } else {
            self.remote
                .put(&job.key, &headers, &condition, body, md5_of(&found.object.etag))
                .await?;
        }
        self.forget_manifest(job, look).await?;
        Ok(Done::Copied { bytes })
    }

    /// Remembers an unmarked, equal object as ours.
    pub(crate) async fn adopt(&self, job: &Job<'_>, look: &Look) -> Result<Done, Attempt> {
        if let Some(object) = &look.object {
            let adopted = crate::state::Adopted {
                key: job.key.clone(),
                etag: object.etag.clone(),
            };
            self.state
                .adopt(&self.mapping.id, adopted)
                .await
                .map_err(|error| from_state(&error))?;
        }
        Ok(Done::InStep)
    }

    /// Replaces headers only; the object's ETag then, or `None` = the body has to be sent anew.
    pub(crate) async fn repost(
        &self,
        job: &Job<'_>,
        look: &Look,
        headers: &RemoteHeaders,
    ) -> Result<Option<String>, Attempt> {
        let Some(object) = &look.object else {
            return Ok(None);
        };
        match self.remote.replace_headers(&job.key, object, headers).await? {
            Replaced::UploadAnew => Ok(None),
            Replaced::Done(etag) => {
                let found = self.remote.head(&job.key).await?.ok_or(Attempt::LookAgain)?;
                after_repost(headers, &found)?;
                Ok(Some(etag))
            }
        }
    }

    /// A plain object over a former large one: its manifest must not describe the new body.
    async fn forget_manifest(&self, job: &Job<'_>, look: &Look) -> Result<(), Attempt> {
        if look.object.as_ref().is_some_and(has_manifest) {
            self.remote
                .delete(&job.namespace.manifest_key(&job.row.name), None)
                .await?;
        }
        Ok(())
    }

    async fn send_bytes(
        &self,
        job: &Job<'_>,
        found: &Found,
        headers: &RemoteHeaders,
        condition: &Condition,
        bytes: Bytes,
    ) -> Result<Done, RemoteError> {
        let length = bytes.len() as u64;
        let md5 = md5_of(&found.object.etag);
        self.remote
            .put(&job.key, headers, condition, Body::from_bytes(bytes), md5)
            .await?;
        Ok(Done::Copied { bytes: length })
    }

    async fn send_in_parts(
        &self,
        job: &Job<'_>,
        found: &Found,
        headers: &RemoteHeaders,
        condition: &Condition,
    ) -> Result<(), Attempt> {
        let lengths = parts::plain_parts(found.object.size);
        let ranges = Ranges {
            source: self.source.clone(),
            path: found.path.clone(),
            etag: found.object.etag.clone(),
            starts: lengths
                .iter()
                .scan(0, |next, length| {
                    let first = *next;
                    *next += length;
                    Some((first, *next - 1))
                })
                .collect(),
        };
        let specs: Vec<_> = lengths
            .into_iter()
            .map(|length| PartSpec { length, md5: None })
            .collect();
        self.remote
            .put_parts(&job.key, headers, condition, &specs, &ranges)
            .await?;
        Ok(())
    }
}

/// Whether a manifest lies beside this copy.
pub(crate) fn has_manifest(object: &RemoteObject) -> bool {
    is_dynamic(object) || object.headers.metadata.contains_key("x-static-large-object")
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Why nothing is left to do.
    pub done: Done,
    /// What is copied may change while the row does not: a dynamic large object.
    pub may_change_unseen: bool,
}

impl From<Done> for Copied {
    fn from(done: Done) -> Self {
        Self {
            done,
            may_change_unseen: false,
        }
    }
}

/// Why one look did not lead to an end.
pub(crate) enum Attempt {
    /// Someone else wrote: look again.
    LookAgain,
    /// The row cannot be finished now.
    Stop(Stop),
}

impl From<Stop> for Attempt {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Held> for Attempt {
    fn from(held: Held) -> Self {
        Self::Stop(held.into())
    }
}

impl From<RemoteError> for Attempt {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::ConditionFailed | RemoteError::NotFound => Self::LookAgain,
            error => Self::Stop(from_remote(error)),
        }
    }
}

/// Ranges of one and the same body.
struct Ranges<S> {
    source: std::sync::Arc<S>,
    path: ObjectPath,
    etag: String,
    starts: Vec<(u64, u64)>,
}

impl<S: Source> PartSource for Ranges<S> {
    async fn open(&self, part: usize) -> Result<Body, SourceError> {
        let mismatch = |what: &str| SourceError::Mismatch {
            object: self.path.clone(),
            what: what.to_owned(),
        };
        let range = *self
            .starts
            .get(part)
            .ok_or_else(|| mismatch("it has fewer parts than were planned"))?;
        let read = Read {
            range: Some(range),
            if_match: Some(self.etag.clone()),
            newest: true,
            ..Read::default()
        };
        match self.source.get(&self.path, &read).await? {
            Answer::Found((_, body)) => Ok(body),
            Answer::Absent(_) | Answer::Changed => Err(mismatch("it changed while it was copied")),
        }
    }
}

/// The md5 that Swift's ETag is, where it is one.
pub(crate) fn md5_of(etag: &str) -> Option<[u8; 16]> {
    let mut md5 = [0; 16];
    hex::decode_to_slice(etag, &mut md5).ok().map(|()| md5)
}

/// Reads a body of known, bounded length into memory.
pub(crate) async fn collect(body: Option<Body>, size: u64) -> Result<Bytes, Held> {
    let failed = |what: String| Held::new(HoldReason::SourceFailed, what);
    let body = body.ok_or_else(|| failed("Swift sent no body; it is read again".into()))?;
    let size = usize::try_from(size).map_err(|error| failed(error.to_string()))?;
    let bytes = body
        .stream
        .try_fold(BytesMut::with_capacity(size), |mut bytes, chunk| async move {
            bytes.extend_from_slice(&chunk);
            Ok(bytes)
        })
        .await
        .map_err(|error| failed(error.to_string()))?;
    if bytes.len() != size {
        return Err(failed(format!(
            "Swift sent {} of {size} bytes; it is read again",
            bytes.len()
        )));
    }
    Ok(bytes.freeze())
}

/// The probe showed that the remote does not keep such a key apart from others: it is not even sent.
fn folded() -> Held {
    Held::new(
        HoldReason::NameNotRepresentable,
        "the remote refuses keys with `//`, a leading `/` or a segment `.` or `..`, or stores them under another key; \
         rename the object, exclude it, or give the policy another prefix",
    )
}

/// What a person can do about a name that cannot be a key.
fn name_refused(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::ReservedName => {
            "under this prefix the name would meet onespace's own keys; rename the object, exclude it, or leave \
             target.prefix out"
        }
        _ => "the name is too long for a key with this prefix (1,024 bytes); rename the object or exclude it",
    }
}
