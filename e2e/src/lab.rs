//! A lab: a real Swift, the embedded S3, a folder for policies and state.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};

use crate::agent::{Agent, Launch, Settings};
use crate::agents::Agents;
use crate::policies::Policies;
use crate::s3::embedded::{EmbeddedS3, StoredHeaders, StoredObject};
use crate::swift::{NO_HEADERS, Options, Swift, User};

/// The bucket of every scenario.
pub const BUCKET: &str = "backup";

/// What a scenario needs.
pub struct Lab {
    /// Swift.
    pub swift: Arc<Swift>,
    /// A user of it.
    pub user: User,
    /// The remote.
    pub s3: EmbeddedS3,
    /// Policies and the files rendered from them.
    pub policies: Policies,
    /// How agents are started.
    pub settings: Settings,
    folder: tempfile::TempDir,
}

impl Lab {
    /// A lab with an empty account and an empty bucket.
    ///
    /// # Errors
    /// A server did not start.
    pub async fn start() -> Result<Self> {
        Self::with(Options::default()).await
    }

    /// A lab with another kind of Swift.
    ///
    /// # Errors
    /// A server did not start.
    pub async fn with(options: Options) -> Result<Self> {
        Self::on(Arc::new(Swift::start(options).await?)).await
    }

    /// A lab on a Swift that others may use, too: its remote, policies and agents are its own.
    ///
    /// # Errors
    /// A server did not start.
    pub async fn on(swift: Arc<Swift>) -> Result<Self> {
        let user = swift.user().await?;
        swift.internal(user.account()).create_account().await?;
        let s3 = EmbeddedS3::start()?;
        s3.create_bucket(BUCKET);
        let folder = tempfile::TempDir::new()?;
        let policies = Policies::new(folder.path())?;
        Ok(Self {
            swift,
            user,
            s3,
            policies,
            settings: Settings::default(),
            folder,
        })
    }

    /// Makes a container.
    ///
    /// # Errors
    /// Refused.
    pub async fn container(&self, name: &str) -> Result<()> {
        self.user.create_container(name, NO_HEADERS).await?;
        Ok(())
    }

    /// Puts objects `prefix000`, `prefix001`, ... into a container; each has its name as body.
    ///
    /// # Errors
    /// Refused.
    pub async fn put_many(&self, container: &str, prefix: &str, count: usize) -> Result<()> {
        let puts = (0..count).map(|number| async move {
            let name = format!("{prefix}{number:03}");
            self.user
                .put(container, &name, NO_HEADERS, name.clone())
                .await
                .map(drop)
        });
        futures::stream::iter(puts)
            .buffer_unordered(8)
            .try_collect()
            .await
    }

    /// Makes a container and has it copied by a policy of its name, to a prefix of its name.
    ///
    /// # Errors
    /// Refused.
    pub async fn follow(&self, container: &str) -> Result<()> {
        self.container(container).await?;
        let policy = self.policy(container, container, "");
        self.policies.apply(&format!("{container}.yaml"), &policy)
    }

    /// A policy `name` from a container to the embedded S3 under a prefix of the policy's name; `more` are further
    /// lines of its spec.
    #[must_use]
    pub fn policy(&self, name: &str, container: &str, more: &str) -> String {
        self.policy_to(name, container, &format!("prefix: {name}"), more)
    }

    /// A policy with these further lines in its target.
    #[must_use]
    pub fn policy_to(&self, name: &str, container: &str, target: &str, more: &str) -> String {
        let keys = Keys {
            endpoint: &self.s3.endpoint(),
            access: self.s3.access_key(),
            secret: self.s3.secret_key(),
        };
        policy_yaml(name, (self.user.account(), container), &keys, target, more)
    }

    /// Where this lab's agent keeps its state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.state_on(0)
    }

    /// Where the agent on this node keeps its state.
    #[must_use]
    pub fn state_on(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("state{node}"))
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// It did not become ready.
    pub async fn agent(&self) -> Result<Agent> {
        self.agent_on(0).await
    }

    /// Starts the agent of this node.
    ///
    /// # Errors
    /// It did not become ready.
    pub async fn agent_on(&self, node: usize) -> Result<Agent> {
        Agent::start(&self.launch(node, &self.state_on(node))).await
    }

    /// Starts the agent of this node, and waits for nothing.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn fresh_agent_on(&self, node: usize) -> Result<Agent> {
        Agent::spawn(&self.launch(node, &self.state_on(node)), &[])
    }

    /// Starts the agent, and waits only until it lives: its mappings may be broken.
    ///
    /// # Errors
    /// It ended.
    pub async fn unready_agent(&self) -> Result<Agent> {
        Agent::start_unready(&self.launch(0, &self.state())).await
    }

    /// Runs the agent with `--once`, and returns its exit code and log.
    ///
    /// # Errors
    /// It did not end.
    pub async fn once(&self) -> Result<(i32, String)> {
        let (status, log) = Agent::once(&self.launch(0, &self.state())).await?;
        Ok((status.code().unwrap_or(-1), log))
    }

    /// The same, ended by a signal as soon as its log has this.
    ///
    /// # Errors
    /// It did not run, or did not end.
    pub async fn once_until(&self, said: &str) -> Result<(i32, String)> {
        let (status, log) = Agent::once_until(&self.launch(0, &self.state()), said).await?;
        Ok((status.code().unwrap_or(-1), log))
    }

    fn launch<'a>(&'a self, node: usize, state: &'a Path) -> Launch<'a> {
        Launch {
            swift: &self.swift,
            node,
            policies: &self.policies,
            state,
            settings: &self.settings,
        }
    }

    /// Starts an agent on each node.
    ///
    /// # Errors
    /// One did not become ready.
    pub async fn agents(&self) -> Result<Agents<'_>> {
        Agents::start(self).await
    }

    /// Every object in the bucket, but for what a probe has there for a moment.
    #[must_use]
    pub fn remote(&self) -> BTreeMap<String, Arc<StoredObject>> {
        copies(&self.s3)
    }

    /// One object in the bucket.
    #[must_use]
    pub fn at(&self, key: &str) -> Option<Arc<StoredObject>> {
        self.remote().remove(key)
    }
}

/// Every object in a server's bucket, but for what a probe has there for a moment.
#[must_use]
pub fn copies(s3: &EmbeddedS3) -> BTreeMap<String, Arc<StoredObject>> {
    let mut objects = s3.objects(BUCKET);
    objects.retain(|key, _| !key.contains(".onespace/probe/"));
    objects
}

/// An object that someone else wrote.
#[must_use]
pub fn unmarked(body: &str, content_type: &str, last_modified: SystemTime) -> StoredObject {
    use md5::Digest;
    StoredObject {
        body: body.to_owned().into(),
        etag: hex::encode(md5::Md5::digest(body)),
        last_modified,
        headers: StoredHeaders {
            content_type: Some(content_type.to_owned()),
            ..StoredHeaders::default()
        },
        parts: Vec::new(),
        checksummed: false,
    }
}

/// How a remote is reached.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// Base URL.
    pub endpoint: &'a str,
    /// Access key.
    pub access: &'a str,
    /// Secret key.
    pub secret: &'a str,
}

/// A policy and its Secret.
#[must_use]
pub fn policy_yaml(
    name: &str,
    (account, container): (&str, &str),
    keys: &Keys<'_>,
    target: &str,
    more: &str,
) -> String {
    let indented = |text: &str, by: &str| {
        text.lines()
            .map(|line| format!("{by}{line}\n"))
            .collect::<String>()
    };
    let (target, more) = (indented(target, "    "), indented(more, "  "));
    let Keys {
        endpoint,
        access,
        secret,
    } = keys;
    let container = serde_json::Value::from(container);
    format!(
        "apiVersion: onespace.dev/v1alpha1
kind: SyncPolicy
metadata: {{name: {name}, namespace: swift}}
spec:
  mode: Sync
  source: {{account: {account}, container: {container}}}
  target:
    protocol: S3
    endpoint: {endpoint}
    bucket: {BUCKET}
    credentials: {{secretRef: {{name: {name}-keys}}}}
{target}{more}---
apiVersion: v1
kind: Secret
metadata: {{name: {name}-keys, namespace: swift}}
stringData: {{AWS_ACCESS_KEY_ID: {access}, AWS_SECRET_ACCESS_KEY: {secret}}}
"
    )
}
