//! The files as they stand in the cluster: one ConfigMap a shard of mappings, one Secret a shard of credentials, one
//! ConfigMap with the index.
//!
//! Every write names the version that it replaces. So a leader that lost its Lease without noticing, or a person's edit,
//! is noticed instead of mixed with ours: the files are then read anew.

use std::borrow::Cow;
use std::collections::BTreeMap;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use onespace_core::load::Files;
use onespace_core::mapping::SHARDS;
use onespace_core::shard::{Step, steps};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{ApiError, FIELD_MANAGER, within};
use crate::metrics::Metrics;
use crate::table::Key;

/// Objects with this label and value are ours.
const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "onespace-operator");

/// [`LABEL`], as a label.
#[must_use]
pub fn label() -> (String, String) {
    (LABEL.0.to_owned(), LABEL.1.to_owned())
}

/// Files that are written at the same time; each is in memory twice meanwhile.
const AT_ONCE: usize = 4;

const INDEX: &str = "onespace-index";
const INDEX_KEY: &str = "index.json";
const MAPPINGS: &str = "onespace-mappings-";
const CREDENTIALS: &str = "onespace-credentials-";

/// The names of our objects.
#[derive(Clone, Debug)]
pub struct Names {
    /// The operator's own namespace.
    pub namespace: String,
}

impl Names {
    /// Whether this is the key of a ConfigMap or Secret of ours.
    #[must_use]
    pub fn are(&self, (namespace, name): &Key) -> bool {
        let shard = name
            .strip_prefix(MAPPINGS)
            .or_else(|| name.strip_prefix(CREDENTIALS));
        *namespace == self.namespace && (name == INDEX || shard.is_some_and(is_shard))
    }
}

fn is_shard(name: &str) -> bool {
    (0..SHARDS).any(|number| name == format!("{number:02}"))
}

/// The files as they stand in the cluster.
pub struct Published {
    client: Client,
    names: Names,
    files: Files,
    /// Versions of the objects that are there, by name.
    versions: BTreeMap<String, String>,
}

impl Published {
    /// Reads all files.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn read(client: Client, names: Names) -> Result<Self, ApiError> {
        let ours = ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
        let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), &names.namespace);
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &names.namespace);
        let config_maps = within(config_maps.list(&ours)).await?.items;
        let secrets = within(secrets.list(&ours)).await?.items;

        let mut files = Files::default();
        let mut versions = BTreeMap::new();
        for object in config_maps {
            let (Some(name), Some(version)) = (object.metadata.name, object.metadata.resource_version) else {
                continue;
            };
            let mut data = object.data.unwrap_or_default();
            if name == INDEX {
                files.index = data.remove(INDEX_KEY).unwrap_or_default().into_bytes();
            } else if let Some(shard) = name.strip_prefix(MAPPINGS).filter(|shard| is_shard(shard)) {
                let bytes = data.remove(&file(shard)).map(String::into_bytes);
                files
                    .mappings
                    .extend(bytes.map(|bytes| (shard.to_owned(), bytes.into())));
            }
            versions.insert(name, version);
        }
        for object in secrets {
            let (Some(name), Some(version)) = (object.metadata.name, object.metadata.resource_version) else {
                continue;
            };
            if let Some(shard) = name.strip_prefix(CREDENTIALS).filter(|shard| is_shard(shard)) {
                let bytes = object.data.unwrap_or_default().remove(&file(shard));
                files
                    .credentials
                    .extend(bytes.map(|ByteString(bytes)| (shard.to_owned(), bytes.into())));
            }
            versions.insert(name, version);
        }
        Ok(Self {
            client,
            names,
            files,
            versions,
        })
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Whether an object of ours has another version than the one that we know.
    #[must_use]
    pub fn is_outdated(&self, name: &str, version: Option<&String>) -> bool {
        match (self.versions.get(name), version) {
            (None, None) => false,
            (Some(known), Some(seen)) => match (known.parse::<u64>(), seen.parse::<u64>()) {
                // The watch is behind our own writes, mostly.
                (Ok(known), Ok(seen)) => seen > known,
                _ => known != seen,
            },
            _ => true,
        }
    }

    /// Replaces what differs, in an order in which no reader loads a mixture. Returns how many objects were written.
    ///
    /// # Errors
    /// No answer, or a refusal. What was written until then stands; the files must be read anew, and trying again
    /// completes them.
    pub async fn replace(mut self, next: Files, metrics: &Metrics) -> Result<(Self, usize), ApiError> {
        let now = std::mem::take(&mut self.files);
        let steps = steps(&now, &next);
        let mut written = 0;
        // Those of one kind in any order, some at a time: each takes long when the API server has much to do.
        for steps in steps.chunk_by(|one, other| kind(one) == kind(other)) {
            let writes: Vec<_> = steps.iter().map(|step| self.take(*step)).collect();
            // None is broken off because another one failed: it might arrive after the files were read anew.
            let writes = futures::stream::iter(writes).buffer_unordered(AT_ONCE);
            let outcomes: Vec<Result<(String, String), ApiError>> = writes.collect().await;
            let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            let name = steps.first().map_or("", |step| kind(step).1);
            let count = u64::try_from(done).unwrap_or(u64::MAX);
            metrics.writes.with_label_values(&[name]).inc_by(count);
            written += done;
            for outcome in outcomes {
                let (name, version) = outcome?;
                self.versions.insert(name, version);
            }
        }
        self.files = next;
        Ok((self, written))
    }

    /// Writes one of them. Returns its name, and its version from now on.
    async fn take(&self, step: Step<'_>) -> Result<(String, String), ApiError> {
        match step {
            Step::Mappings(shard, bytes) => {
                let name = format!("{MAPPINGS}{shard}");
                let text = bytes.map(String::from_utf8_lossy);
                self.write::<ConfigMap, _>(name, file(shard), text).await
            }
            Step::Index(bytes) => {
                let (name, key) = (INDEX.to_owned(), INDEX_KEY.to_owned());
                let text = String::from_utf8_lossy(bytes);
                self.write::<ConfigMap, _>(name, key, Some(text)).await
            }
            Step::Credentials(shard, bytes) => {
                let name = format!("{CREDENTIALS}{shard}");
                let bytes = bytes.map(|bytes| ByteString(bytes.to_vec()));
                self.write::<Secret, _>(name, file(shard), bytes).await
            }
        }
    }

    /// Has the object hold this under its key, or nothing.
    async fn write<K, T>(
        &self,
        name: String,
        key: String,
        content: Option<T>,
    ) -> Result<(String, String), ApiError>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
        T: Serialize,
    {
        let version = self.versions.get(&name).cloned();
        let known = version.is_some();
        let object = Object {
            api_version: K::api_version(&()),
            kind: K::kind(&()),
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(self.names.namespace.clone()),
                labels: Some(BTreeMap::from([label()])),
                resource_version: version,
                ..ObjectMeta::default()
            },
            data: BTreeMap::from([(key, content)]),
        };
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            force: !known,
            ..PatchParams::default()
        };
        // An API server reads what is applied as YAML, which takes it far longer; but what is applied may be absent, or
        // there without our label.
        let patch = match known {
            true => Patch::Merge(&object),
            false => Patch::Apply(&object),
        };
        let written = within(api.patch_metadata(&name, &params, &patch)).await?;
        let version = written.metadata.resource_version.unwrap_or_default();
        Ok((name, version))
    }
}

/// One of our objects, as it is written. A key without a content goes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<T> {
    api_version: Cow<'static, str>,
    kind: Cow<'static, str>,
    metadata: ObjectMeta,
    data: BTreeMap<String, Option<T>>,
}

/// Without the data: it may be passwords.
impl<T> std::fmt::Debug for Object<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut object = f.debug_struct("Object");
        object
            .field("kind", &self.kind)
            .field("name", &self.metadata.name);
        object.finish_non_exhaustive()
    }
}

/// The kind of a step, those of which may be taken together: whether something is written, and the kind's name in the metrics.
fn kind(step: &Step<'_>) -> (bool, &'static str) {
    match step {
        Step::Credentials(_, bytes) => (bytes.is_some(), "credentials"),
        Step::Mappings(_, bytes) => (bytes.is_some(), "mappings"),
        Step::Index(_) => (true, "index"),
    }
}

fn file(shard: &str) -> String {
    format!("{shard}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_objects_are_ours() {
        let names = Names {
            namespace: "swift".to_owned(),
        };
        for (namespace, name, ours) in [
            ("swift", "onespace-index", true),
            ("swift", "onespace-mappings-15", true),
            ("swift", "onespace-credentials-00", true),
            ("swift", "onespace-mappings-16", false),
            ("swift", "onespace-mappings-", false),
            ("swift", "backup-keys", false),
            ("other", "onespace-index", false),
        ] {
            let key = (namespace.to_owned(), name.to_owned());
            assert_eq!(names.are(&key), ours, "{key:?}");
        }
    }
}
