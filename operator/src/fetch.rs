//! Getting the Secrets and ConfigMaps that policies name. Watches show only their versions, so that nothing is held
//! that no policy needs.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use http::Request;
use kube::Client;
use onespace_core::validate::{ConfigMapObject, Reference, SecretObject, ValidPolicy};
use serde::de::DeserializeOwned;

use crate::api::within;
use crate::table::{Key, Table};

/// Objects that are got at the same time.
const AT_ONCE: usize = 16;

/// The objects of one kind that were got, each with the version that it was got at.
pub struct Cache<T> {
    resource: &'static str,
    /// What policies name.
    wanted: BTreeSet<Key>,
    /// An object that was got before its watch showed it has no version here.
    objects: BTreeMap<Key, (String, T)>,
    /// Not there, by the API server's own word: a watch may be behind what a policy beside it says.
    absent: BTreeSet<Key>,
}

impl<T: DeserializeOwned> Cache<T> {
    fn new(resource: &'static str) -> Self {
        Self {
            resource,
            wanted: BTreeSet::new(),
            objects: BTreeMap::new(),
            absent: BTreeSet::new(),
        }
    }

    /// Gets what is wanted and not known in its newest version; forgets what is not wanted. Returns how many could not be
    /// got.
    async fn refresh(&mut self, client: &Client, wanted: &BTreeSet<Key>, there: &Table<String>) -> usize {
        self.wanted.clone_from(wanted);
        self.objects.retain(|key, (version, _)| {
            wanted.contains(key) && (there.get(key).is_some() || version.is_empty())
        });
        self.absent
            .retain(|key| wanted.contains(key) && there.get(key).is_none());
        let resource = self.resource;
        let missing = wanted.iter().filter_map(|key| {
            let known = self.objects.get(key).map(|(version, _)| version);
            match there.get(key) {
                Some(version) => (known != Some(version)).then(|| (key.clone(), version.clone())),
                None => (!self.absent.contains(key)).then(|| (key.clone(), String::new())),
            }
        });
        let missing: Vec<_> = missing.collect();
        let mut gets = futures::stream::iter(missing)
            .map(|(key, version)| get::<T>(client.clone(), resource, key, version))
            .buffer_unordered(AT_ONCE);
        let mut failures = 0;
        while let Some((key, version, object)) = gets.next().await {
            match object {
                Ok(Some(object)) => drop(self.objects.insert(key, (version, object))),
                Ok(None) => {
                    self.objects.remove(&key);
                    if version.is_empty() {
                        self.absent.insert(key);
                    }
                }
                Err(error) => {
                    failures += 1;
                    // What is known of it stays: better old credentials than none.
                    tracing::warn!(
                        namespace = key.0,
                        name = key.1,
                        "{resource} cannot be got: {error}"
                    );
                }
            }
        }
        failures
    }

    fn find(&self, key: &Key, there: &Table<String>) -> Reference<'_, T> {
        match (self.objects.get(key), there.get(key)) {
            (Some((version, object)), Some(newest)) if version != newest => Reference::Outdated(object),
            (Some((_, object)), _) => Reference::There(object),
            (None, None) if self.absent.contains(key) => Reference::Absent,
            (None, _) => Reference::Unknown,
        }
    }
}

async fn get<T: DeserializeOwned>(
    client: Client,
    resource: &'static str,
    key: Key,
    version: String,
) -> (Key, String, Result<Option<T>, String>) {
    let object = get_now(&client, resource, &key).await;
    (key, version, object)
}

async fn get_now<T: DeserializeOwned>(
    client: &Client,
    resource: &str,
    (namespace, name): &Key,
) -> Result<Option<T>, String> {
    let request = Request::get(format!("/api/v1/namespaces/{namespace}/{resource}/{name}"))
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    match within(client.request::<T>(request)).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.code() == Some(404) => Ok(None),
        // A parser's message could quote a password.
        Err(crate::api::ApiError::Kube(kube::Error::SerdeError(_))) => {
            Err("it has another form than is expected".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// What policies name.
#[derive(Debug, Default)]
pub struct Wanted {
    secrets: BTreeSet<Key>,
    config_maps: BTreeSet<Key>,
}

impl Wanted {
    /// What these policies name.
    pub fn by<'a>(policies: impl Iterator<Item = &'a ValidPolicy>) -> Self {
        let mut wanted = Self::default();
        for policy in policies {
            let namespace = &policy.mapping.policy.namespace;
            wanted.secrets.insert((namespace.clone(), policy.secret.clone()));
            if let Some((name, _)) = &policy.ca_bundle {
                wanted.config_maps.insert((namespace.clone(), name.clone()));
            }
        }
        wanted
    }
}

/// Everything that policies refer to.
pub struct References {
    secrets: Cache<SecretObject>,
    config_maps: Cache<ConfigMapObject>,
}

impl Default for References {
    fn default() -> Self {
        Self {
            secrets: Cache::new("secrets"),
            config_maps: Cache::new("configmaps"),
        }
    }
}

impl References {
    /// Gets what is wanted. Returns how many objects could not be got.
    pub async fn refresh(
        &mut self,
        client: &Client,
        wanted: &Wanted,
        secrets: &Table<String>,
        config_maps: &Table<String>,
    ) -> usize {
        self.secrets.refresh(client, &wanted.secrets, secrets).await
            + self
                .config_maps
                .refresh(client, &wanted.config_maps, config_maps)
                .await
    }

    /// Whether a policy names a Secret.
    #[must_use]
    pub fn wants_secret(&self, key: &Key) -> bool {
        self.secrets.wanted.contains(key)
    }

    /// Whether a policy names a ConfigMap.
    #[must_use]
    pub fn wants_config_map(&self, key: &Key) -> bool {
        self.config_maps.wanted.contains(key)
    }

    /// The Secret that a policy names.
    pub fn secret(&self, policy: &ValidPolicy, there: &Table<String>) -> Reference<'_, SecretObject> {
        let key = (policy.mapping.policy.namespace.clone(), policy.secret.clone());
        self.secrets.find(&key, there)
    }

    /// The ConfigMap that a policy names.
    pub fn config_map(&self, policy: &ValidPolicy, there: &Table<String>) -> Reference<'_, ConfigMapObject> {
        match &policy.ca_bundle {
            None => Reference::Absent,
            Some((name, _)) => {
                let key = (policy.mapping.policy.namespace.clone(), name.clone());
                self.config_maps.find(&key, there)
            }
        }
    }
}
