//! `onespace verify`

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use onespace_core::mapping::Mapping;
use onespace_core::metadata::in_step;
use onespace_core::remote::RemoteHeaders;
use onespace_stores::body::Body;
use onespace_stores::egress::DenyList;
use onespace_stores::remote::{Condition, Remote, RemoteError, Replaced};
use onespace_stores::s3::{S3Config, S3Remote};

use crate::args::{Inputs, Verify};
use crate::check::{Verdict, check};
use crate::input::{self, Objects};
use crate::render::find_references;

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Store an object.
    Put,
    /// Replace its metadata.
    Post,
    /// Read its headers.
    Head,
    /// List it.
    List,
    /// Remove it.
    Delete,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Head => "HEAD",
            Self::List => "LIST",
            Self::Delete => "DELETE",
        })
    }
}

/// The step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed: {cause}")]
pub struct Failed {
    /// Which.
    pub step: Step,
    /// What happened and what to do.
    pub cause: Cause,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The remote refused it, or cannot be reached.
    #[error(transparent)]
    Remote(Box<RemoteError>),
    /// It was acknowledged, but what is there is something else.
    #[error("{0}")]
    Wrong(&'static str),
}

impl Step {
    fn of<T>(self, result: Result<T, RemoteError>) -> Result<T, Failed> {
        result.map_err(|error| Failed {
            step: self,
            cause: Cause::Remote(Box::new(error)),
        })
    }

    fn require(self, holds: bool, otherwise: &'static str) -> Result<(), Failed> {
        if holds {
            Ok(())
        } else {
            Err(Failed {
                step: self,
                cause: Cause::Wrong(otherwise),
            })
        }
    }
}

/// Verifies the targets of the chosen policies. `false` = something failed.
///
/// # Errors
/// When the input cannot be read or names no such policy.
pub fn run(args: &Verify, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<bool> {
    let Verify {
        inputs: Inputs { files },
        policy,
        read_only,
    } = args;
    let objects = input::read(files)?;
    for note in &objects.notes {
        writeln!(err, "note: {note}")?;
    }
    let chosen: Vec<Verdict> = check(&objects)?
        .into_iter()
        .filter(|verdict| is_chosen(verdict, policy.as_deref()))
        .collect();
    anyhow::ensure!(
        !chosen.is_empty(),
        "the input holds no such SyncPolicy; check -f and --policy"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let mut good = true;
    for verdict in chosen {
        let (namespace, name) = &verdict.key;
        let (mapping, remote) = match target(&objects, &verdict) {
            Ok(target) => target,
            Err(lines) => {
                good = false;
                for line in lines {
                    writeln!(err, "{line}")?;
                }
                continue;
            }
        };
        let bucket = &mapping.target.bucket;
        let scratch = scratch_prefix(&mapping);
        let outcome = runtime.block_on(async {
            if *read_only {
                read(&remote, &mapping).await
            } else {
                write_and_read(&remote, &scratch).await
            }
        });
        match outcome {
            Ok(steps) => writeln!(out, "{namespace}/{name}: bucket {bucket}: {steps}: done")?,
            Err(failed) => {
                good = false;
                writeln!(err, "{namespace}/{name}: bucket {bucket}: {failed}")?;
            }
        }
    }
    Ok(good)
}

fn is_chosen(verdict: &Verdict, wanted: Option<&str>) -> bool {
    let (namespace, name) = &verdict.key;
    match wanted.map(|wanted| wanted.split_once('/').unwrap_or(("", wanted))) {
        None => true,
        Some(("", wanted)) => wanted == name,
        Some((in_namespace, wanted)) => in_namespace == namespace && wanted == name,
    }
}

/// The policy's mapping and a client of its bucket, or what to say instead.
fn target(objects: &Objects, verdict: &Verdict) -> Result<(Arc<Mapping>, S3Remote), Vec<String>> {
    let resolved = verdict
        .result
        .clone()
        .and_then(|policy| find_references(objects, &verdict.key.0, &policy));
    let (mapping, credentials) = resolved.map_err(|findings| verdict.lines(&findings))?;
    let say = |what: String| vec![format!("{}/{}: {what}", verdict.key.0, verdict.key.1)];
    let keys = credentials
        .keys()
        .ok_or_else(|| say("only remotes that speak S3 can be verified; this one is Swift".into()))?;
    let config = S3Config::from_target(&mapping.target, keys.into(), DenyList::default())
        .with_proxy_login(credentials.proxy.as_ref());
    let remote = S3Remote::new(config).map_err(|error| say(error.to_string()))?;
    Ok((mapping, remote))
}

/// Below the policy's prefix, among onespace's own keys: never where objects are.
fn scratch_prefix(mapping: &Mapping) -> String {
    match mapping.target.prefix.as_deref() {
        None | Some("") => ".onespace/verify/".to_owned(),
        Some(prefix) => format!("{prefix}/.onespace/verify/"),
    }
}

fn metadata(value: &str) -> RemoteHeaders {
    RemoteHeaders {
        content_type: Some("text/plain".into()),
        metadata: [("verify".to_owned(), value.to_owned())].into(),
        ..RemoteHeaders::default()
    }
}

/// PUT, POST, HEAD, LIST, DELETE with one small object. It is removed whatever fails.
async fn write_and_read<R: Remote>(remote: &R, scratch: &str) -> Result<&'static str, Failed> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let key = format!("{scratch}{:x}-{:x}", since.as_nanos(), std::process::id());
    let body = Body::from_bytes(Bytes::from_static(
        b"written by onespace verify; may be removed\n",
    ));
    Step::Put.of(remote
        .put(&key, &metadata("put"), &Condition::None, body, None)
        .await)?;
    let tried = replace_and_look(remote, scratch, &key).await;
    let deleted = Step::Delete.of(remote.delete(&key, None).await);
    tried?;
    deleted?;
    let left = Step::Delete.of(remote.head(&key).await)?;
    Step::Delete.require(
        left.is_none(),
        "the object is still there afterwards; look for a rule that keeps objects",
    )?;
    Ok("PUT, POST, HEAD, LIST, DELETE")
}

async fn replace_and_look<R: Remote>(remote: &R, scratch: &str, key: &str) -> Result<(), Failed> {
    let gone = "the object is gone after its PUT; look for a rule that removes objects at once";
    let Some(before) = Step::Head.of(remote.head(key).await)? else {
        return Step::Head.require(false, gone);
    };
    let headers = metadata("post");
    let replaced = Step::Post.of(remote.replace_headers(key, &before, &headers).await)?;
    let Some(after) = Step::Head.of(remote.head(key).await)? else {
        return Step::Head.require(false, gone);
    };
    if replaced != Replaced::UploadAnew {
        Step::Post.require(
            in_step(&headers, &after.headers),
            "the remote stored other metadata than were sent; use a server that keeps metadata as they are",
        )?;
    }
    Step::Head.require(
        after.size == before.size,
        "the object has another size than was sent",
    )?;
    let page = Step::List.of(remote.list(scratch, None, 1000).await)?;
    Step::List.require(
        page.more
            || page
                .objects
                .iter()
                .any(|object| object.key == key && object.etag == after.etag),
        "the object is not in the listing; use a server whose listings are complete",
    )
}

/// LIST below the policy's prefix, and HEAD.
async fn read<R: Remote>(remote: &R, mapping: &Mapping) -> Result<&'static str, Failed> {
    let prefix = mapping
        .target
        .prefix
        .as_deref()
        .filter(|prefix| !prefix.is_empty());
    let prefix = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
    let page = Step::List.of(remote.list(&prefix, None, 1).await)?;
    // In an empty bucket the answer that nothing is there will do.
    let key = page.objects.first().map_or_else(
        || format!("{prefix}.onespace/verify/none"),
        |object| object.key.clone(),
    );
    Step::Head.of(remote.head(&key).await)?;
    Ok("LIST, HEAD")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_chosen_by_name_with_or_without_namespace() {
        let verdict = Verdict {
            path: Some("p.yaml".into()),
            key: ("swift".into(), "photos".into()),
            result: Err(Vec::new()),
        };
        for (wanted, chosen) in [
            (None, true),
            (Some("photos"), true),
            (Some("swift/photos"), true),
            (Some("other/photos"), false),
            (Some("swift"), false),
        ] {
            assert_eq!(is_chosen(&verdict, wanted), chosen, "{wanted:?}");
        }
    }
}
