//! Whether the remote holds what Swift holds, asked of both and not of the agents.

use std::collections::BTreeSet;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use http::Method;

use crate::http::Reply;
use crate::lab::Lab;
use crate::s3::embedded::StoredObject;

impl Lab {
    /// How the remote under the prefix `container/` differs from the container: body, content type and user metadata
    /// of every name that either has. Swift is asked for the newest of all its replicas.
    ///
    /// # Errors
    /// No answer.
    pub async fn differences(&self, container: &str) -> Result<Vec<String>> {
        let remote = self.remote();
        let prefix = format!("{container}/");
        let copies = remote.keys().filter_map(|key| key.strip_prefix(&prefix));
        let mut names: BTreeSet<String> = copies
            .filter(|name| !name.starts_with(".manifests/") && !name.starts_with(".onespace/"))
            .map(str::to_owned)
            .collect();
        // A container that is gone holds nothing.
        if self.user.head_container(container).await?.status.is_success() {
            for row in self.user.list(container).await? {
                names.extend(row["name"].as_str().map(str::to_owned));
            }
        }
        let (remote, prefix) = (&remote, &prefix);
        let looks = names.into_iter().map(|name| async move {
            let path = format!("{container}/{name}");
            let newest = [("x-newest", "true")];
            let swift = self.user.request(Method::GET, &path, "", &newest, "").await?;
            let copy = remote.get(&format!("{prefix}{name}"));
            anyhow::Ok(difference(&swift, copy.map(AsRef::as_ref)).map(|what| format!("{name}: {what}")))
        });
        let found: Vec<_> = futures::stream::iter(looks).buffered(8).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The names whose copies were deleted at the remote under the prefix `container/`.
    #[must_use]
    pub fn deleted(&self, container: &str) -> BTreeSet<String> {
        let prefix = format!("{container}/");
        let deleted = self.s3.deleted();
        deleted
            .iter()
            .filter_map(|key| key.strip_prefix(&prefix))
            .filter(|name| !name.starts_with(".manifests/") && !name.starts_with(".onespace/"))
            .map(str::to_owned)
            .collect()
    }
}

fn difference(swift: &Reply, copy: Option<&StoredObject>) -> Option<String> {
    let there = swift.status.is_success();
    let Some(copy) = copy else {
        return there.then(|| "is missing at the remote".to_owned());
    };
    if !there {
        return Some(format!("is at the remote, Swift answers {}", swift.status));
    }
    if swift.body != copy.body {
        return Some(format!(
            "another body: {} bytes in Swift, {} at the remote",
            swift.body.len(),
            copy.body.len()
        ));
    }
    if swift.header("content-type") != copy.headers.content_type.as_deref() {
        return Some(format!("another content type: {:?}", copy.headers.content_type));
    }
    for (name, value) in &swift.headers {
        let Some(name) = name.as_str().strip_prefix("x-object-meta-") else {
            continue;
        };
        let copied = copy.headers.metadata.get(name);
        if copied.map(String::as_bytes) != Some(value.as_bytes()) {
            return Some(format!("another {name}: {copied:?}"));
        }
    }
    None
}
