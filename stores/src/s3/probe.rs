//! What a remote can do, found out with a few small objects.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_s3::config::{Config, RequestChecksumCalculation};
use aws_sdk_s3::types::{Delete, ObjectIdentifier, Tag, Tagging};
use bytes::Bytes;
use futures::StreamExt;
use onespace_core::reason::PauseReason;
use onespace_core::remote::RemoteHeaders;

use super::S3Remote;
use super::list::Version;
use super::upload::upload;
use crate::body::Body;
use crate::remote::{Capabilities, Condition, Permissions, RemoteError};

/// An ETag that no object of the probe has.
const WRONG_ETAG: &str = "00000000000000000000000000000000";

/// Two probes at the same moment, in one process or in two, have different names.
static PROBES: AtomicU64 = AtomicU64::new(0);

fn unique() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = PROBES.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{:x}-{count:x}", since.as_nanos(), std::process::id())
}

/// `Ok(true)`: it was done; `Ok(false)`: it is refused; `Err`: the remote as a whole does not work.
fn refused(error: RemoteError) -> Result<bool, RemoteError> {
    match error {
        RemoteError::Paused {
            reason: PauseReason::AccessDenied | PauseReason::UnexpectedAnswer,
            ..
        }
        | RemoteError::Refused { .. }
        | RemoteError::ConditionFailed
        | RemoteError::NotFound
        | RemoteError::Altered { .. } => Ok(false),
        fatal => Err(fatal),
    }
}

impl S3Remote {
    pub(super) async fn probe_bucket(
        &self,
        prefix: &str,
    ) -> Result<(Capabilities, Permissions), RemoteError> {
        // Names that listings often get wrong: each must come back as it is, in this order.
        let scratch = format!("{prefix}{}/", unique());
        let keys = ["1", "2 +%2F&é", "3"].map(|name| format!("{scratch}{name}"));
        let outcome = self.probe_keys(&scratch, &keys).await;
        let removed = self.remove_all(&keys).await;
        let (mut capabilities, mut permissions) = outcome?;
        let removed = removed?;
        capabilities.batch_delete = removed.by_batch;
        permissions.operations.insert("delete", removed.all);
        Ok((capabilities, permissions))
    }

    async fn probe_keys(
        &self,
        scratch: &str,
        keys: &[String; 3],
    ) -> Result<(Capabilities, Permissions), RemoteError> {
        let mut found = Capabilities::default();
        let mut allowed = BTreeMap::new();
        let [first, second, third] = keys;

        let written = self.try_write(first, "first", &Condition::None).await?;
        allowed.insert("put", written);
        if !written {
            // Nothing is there to look at: reading is asked of keys that do not exist.
            allowed.insert("head", allowed_to(self.head_object(first).await)?);
            allowed.insert("get", allowed_to(self.get_object(first, None).await)?);
            allowed.insert(
                "list",
                allowed_to(self.list_with(Version::Two, scratch, None, 1).await)?,
            );
            found.list_v2 = true;
            return Ok((found, Permissions { operations: allowed }));
        }
        allowed.insert("head", allowed_to(self.head_object(first).await)?);
        allowed.insert("get", allowed_to(self.get_object(first, None).await)?);

        self.probe_conditions(first, &mut found).await?;

        let more = self.try_write(second, "second", &Condition::None).await?
            && self.try_write(third, "third", &Condition::None).await?;
        let listable = self.list_with(Version::Two, scratch, None, 1).await;
        allowed.insert(
            "list",
            match &listable {
                Err(RemoteError::Paused {
                    reason: PauseReason::AccessDenied,
                    ..
                }) => false,
                Err(error) => refused(error.clone()).map(|_| true)?,
                Ok(_) => true,
            },
        );
        found.list_v2 = more && self.lists_right(scratch, keys).await?;
        found.storage_class = self.keeps_what_was_asked(first).await?;
        found.tagging = self.tags(first).await?;
        found.checksum_trailers = self.takes_trailers(third).await?;
        for (key, folded, holds) in [
            ("d//1", "d/1", &mut found.double_slash),
            ("e/./1", "e/1", &mut found.dot_segments),
        ] {
            *holds = self
                .keeps_apart(&format!("{scratch}{key}"), &format!("{scratch}{folded}"))
                .await?;
        }
        found.leading_slash = self
            .keeps_apart(&format!("/{scratch}f"), &format!("{scratch}f"))
            .await?;
        Ok((found, Permissions { operations: allowed }))
    }

    /// Whether what is written to the first key is there, and is not at the second. Removes both.
    async fn keeps_apart(&self, key: &str, folded: &str) -> Result<bool, RemoteError> {
        let there = async |key: &str| match self.head_object(key).await {
            Ok(object) => Ok(object.is_some()),
            Err(error) => refused(error),
        };
        let written = self.try_write(key, "apart", &Condition::None).await?;
        let apart = written && there(key).await? && !there(folded).await?;
        for key in [key, folded] {
            if written && there(key).await? {
                match self.delete_object(key, None).await {
                    Ok(()) => {}
                    Err(error) => refused(error).map(drop)?,
                }
            }
        }
        Ok(apart)
    }

    async fn try_write(
        &self,
        key: &str,
        text: &'static str,
        condition: &Condition,
    ) -> Result<bool, RemoteError> {
        let body = Body::from_bytes(Bytes::from_static(text.as_bytes()));
        match self
            .put_object(key, &RemoteHeaders::default(), condition, body, None)
            .await
        {
            Ok(_) => Ok(true),
            Err(error) => refused(error),
        }
    }

    /// A condition counts as honoured if it stops what it must stop and lets pass what it must let pass.
    async fn probe_conditions(&self, key: &str, found: &mut Capabilities) -> Result<(), RemoteError> {
        let put = |text: &'static str, condition: Condition| async move {
            let body = Body::from_bytes(Bytes::from_static(text.as_bytes()));
            match self
                .put_object(key, &RemoteHeaders::default(), &condition, body, None)
                .await
            {
                Err(RemoteError::ConditionFailed) => Ok(Some(false)),
                Ok(_) => Ok(Some(true)),
                Err(error) => refused(error).map(|_| None),
            }
        };
        found.put_if_absent = put("absent", Condition::Absent).await? == Some(false);
        let stopped = put("wrong", Condition::Matches(WRONG_ETAG.into())).await? == Some(false);
        let etag = match self.head_object(key).await {
            Ok(Some(object)) => object.etag,
            Ok(None) => return Ok(()),
            Err(error) => return refused(error).map(drop),
        };
        found.put_if_match = stopped && put("right", Condition::Matches(etag)).await? == Some(true);
        found.delete_if_match = match self.delete_object(key, Some(WRONG_ETAG)).await {
            Err(RemoteError::ConditionFailed) => true,
            Ok(()) => {
                self.try_write(key, "again", &Condition::None).await?;
                false
            }
            Err(error) => refused(error)?,
        };
        Ok(())
    }

    /// Whether pages of version 2 follow each other as they should.
    async fn lists_right(&self, scratch: &str, keys: &[String; 3]) -> Result<bool, RemoteError> {
        let mut after: Option<String> = None;
        for (limit, expected, more) in [(2, &keys[..2], true), (2, &keys[2..], false)] {
            let page = match self
                .list_with(Version::Two, scratch, after.as_deref(), limit)
                .await
            {
                Ok(page) => page,
                Err(error) => return refused(error),
            };
            let listed: Vec<&String> = page.objects.iter().map(|object| &object.key).collect();
            if listed != expected.iter().collect::<Vec<_>>() || page.more != more {
                return Ok(false);
            }
            after = listed.last().map(|key| (*key).clone());
        }
        Ok(true)
    }

    /// Whether storage class and encryption are there after they were asked for.
    async fn keeps_what_was_asked(&self, key: &str) -> Result<bool, RemoteError> {
        let answer = self
            .clients()
            .twice
            .head_object()
            .bucket(&self.config.bucket)
            .key(key)
            .send()
            .await;
        let Ok(object) = answer else { return Ok(false) };
        let class = super::object::storage_class(object.storage_class());
        let asked = self
            .config
            .storage_class
            .clone()
            .filter(|class| class != "STANDARD");
        let (algorithm, _) = super::object::encryption(&self.config.encryption);
        let encrypted = algorithm.is_none_or(|asked| object.server_side_encryption() == Some(&asked));
        Ok(asked.is_none_or(|asked| class.as_ref() == Some(&asked)) && encrypted)
    }

    async fn tags(&self, key: &str) -> Result<bool, RemoteError> {
        let tagged = async {
            let tag = Tag::builder().key("probe").value("1").build()?;
            let tagging = Tagging::builder().tag_set(tag).build()?;
            let put = self
                .clients()
                .once
                .put_object_tagging()
                .bucket(&self.config.bucket)
                .key(key)
                .tagging(tagging);
            Ok::<_, aws_smithy_types::error::operation::BuildError>(put.send().await.is_ok())
        };
        Ok(self.answered(tagged).await?.unwrap_or(false))
    }

    /// Whether a body with a checksum behind it arrives.
    async fn takes_trailers(&self, key: &str) -> Result<bool, RemoteError> {
        let text = Bytes::from_static(b"with a trailer");
        let length = text.len();
        // Two chunks: the SDK hashes a body in memory beforehand and sends no trailer.
        let chunks = futures::stream::iter([Ok(text.slice(..4)), Ok(text.slice(4..))]).boxed();
        let body = Body {
            length: length as u64,
            stream: chunks,
        };
        let (stream, sent) = upload(body, None, self.config.timeouts.idle).await?;
        let request = self
            .clients()
            .once
            .put_object()
            .bucket(&self.config.bucket)
            .key(key)
            .content_length(i64::try_from(length).unwrap_or(i64::MAX))
            .body(stream)
            .customize()
            .config_override(
                Config::builder().request_checksum_calculation(RequestChecksumCalculation::WhenSupported),
            )
            .send();
        let accepted = matches!(sent.watch(self.limits(), request).await, Ok(Ok(_)));
        if !accepted {
            return Ok(false);
        }
        Ok(matches!(self.head_object(key).await, Ok(Some(object)) if object.size == length as u64))
    }

    /// Removes the probe's keys: in one request, where that works, then one by one what is left.
    async fn remove_all(&self, keys: &[String; 3]) -> Result<Removed, RemoteError> {
        let by_batch = self.answered(self.remove_by_batch(keys)).await?;
        let mut gone_by_batch = by_batch;
        let mut all = true;
        for key in keys {
            let there = match self.head_object(key).await {
                Ok(there) => there.is_some(),
                Err(error) => refused(error).map(|_| true)?,
            };
            if !there {
                continue;
            }
            gone_by_batch = false;
            match self.delete_object(key, None).await {
                Ok(()) => {}
                Err(error) => all &= refused(error)?,
            }
        }
        Ok(Removed {
            by_batch: gone_by_batch,
            all,
        })
    }

    async fn remove_by_batch(&self, keys: &[String; 3]) -> bool {
        let named: Result<Vec<_>, _> = keys
            .iter()
            .map(|key| ObjectIdentifier::builder().key(key).build())
            .collect();
        let Ok(delete) =
            named.and_then(|named| Delete::builder().set_objects(Some(named)).quiet(true).build())
        else {
            return false;
        };
        let answer = self
            .clients()
            .once
            .delete_objects()
            .bucket(&self.config.bucket)
            .delete(delete)
            .send()
            .await;
        answer.is_ok_and(|answer| answer.errors().is_empty())
    }
}

struct Removed {
    by_batch: bool,
    all: bool,
}

/// Whether the answer says that the operation is allowed, whatever else it says.
fn allowed_to<T>(answer: Result<T, RemoteError>) -> Result<bool, RemoteError> {
    match answer {
        Ok(_) => Ok(true),
        Err(RemoteError::Paused {
            reason: PauseReason::AccessDenied,
            ..
        }) => Ok(false),
        Err(error) => Err(error),
    }
}
