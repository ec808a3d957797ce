//! Dynamic large objects: the bytes of the segments that are listed now become one object, and a manifest beside it says
//! what they were. Whether they are the same still is looked at again every slack.

use bytes::Bytes;
use md5::{Digest, Md5};
use onespace_core::local::SwiftObject;
use onespace_core::manifest::{DynamicError, Prefix, Resolved, Segments};
use onespace_core::plan::copy::{Look, is_dynamic};
use onespace_core::plan::{Done, Held, Stop};
use onespace_core::reason::HoldReason;
use onespace_stores::remote::Remote;
use onespace_stores::source::{Answer, ObjectPath, Source};

use crate::clock::Clock;
use crate::copy::{Attempt, Found, Job};
use crate::large::{Stored, mismatch};
use crate::stop::from_source;
use crate::work::Work;

impl<S: Source + 'static, R: Remote, C: Clock> Work<S, R, C> {
    /// Brings a dynamic large object and its manifest in step with what is listed for `header`, its
    /// `X-Object-Manifest`.
    pub(crate) async fn copy_dynamic(
        &self,
        job: &Job<'_>,
        look: &Look,
        found: &Found,
        header: &str,
    ) -> Result<Done, Attempt> {
        let account = &found.path.account;
        let prefix = Prefix::parse(header).map_err(|error| held(&error))?;
        let resolved = self.segments(account, prefix.clone()).await?;
        let plan = self.plan_parts(&resolved.extents)?;
        let whole = Found {
            path: found.path.clone(),
            object: Box::new(SwiftObject {
                etag: resolved.etag.clone(),
                size: plan.length,
                ..(*found.object).clone()
            }),
            times: found.times,
        };
        let manifest = Stored {
            etag: hex::encode(Md5::digest(&resolved.manifest)),
            body: Bytes::from(resolved.manifest),
        };
        let replaced = bare(look, found);
        let look = replaced.as_ref().unwrap_or(look);
        let done = self.store_large(job, look, &whole, &plan, &manifest).await?;
        if matches!(done, Done::Copied { .. }) {
            // While they were read they may have become others.
            let again = self.segments(account, prefix).await?;
            if again.manifest != manifest.body {
                return Err(Attempt::LookAgain);
            }
        }
        Ok(done)
    }

    /// What is listed now.
    async fn segments(&self, account: &str, prefix: Prefix) -> Result<Resolved, Stop> {
        let path = ObjectPath {
            account: account.to_owned(),
            container: prefix.container.clone(),
            object: prefix.prefix.clone(),
        };
        let mut segments = Segments::new(prefix);
        loop {
            let page = self
                .source
                .list(&path, segments.marker())
                .await
                .map_err(|error| from_source(&error))?;
            let Answer::Found(page) = page else {
                return Err(mismatch(format!(
                    "the container {} of the segments is not there; it is looked for again",
                    path.container
                )));
            };
            if page.is_empty() {
                return Ok(segments.finish());
            }
            for listed in page {
                segments.add(listed).map_err(|error| held(&error))?;
            }
        }
    }
}

/// What lies at the key is the manifest object itself, without a mark: 1space copied no more than that. It is replaced,
/// however new it is.
fn bare(look: &Look, found: &Found) -> Option<Look> {
    let object = look.object.as_ref().filter(|_| look.mark.is_none())?;
    let same = is_dynamic(object) && object.etag == found.object.etag && object.size == found.object.size;
    same.then(|| {
        let mut look = look.clone();
        if let Some(object) = &mut look.object {
            object.last_modified = found.times.time;
        }
        look
    })
}

fn held(error: &DynamicError) -> Held {
    let reason = match error {
        DynamicError::NotAPrefix | DynamicError::Nested(_) => HoldReason::InvalidManifest,
        DynamicError::TooMany => HoldReason::TooLarge,
        DynamicError::Listing(_) | DynamicError::OutOfOrder => HoldReason::SourceFailed,
    };
    Held::new(reason, error.to_string())
}
