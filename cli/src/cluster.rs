//! The policies of a cluster, through its API.

use std::time::{Duration, Instant};

use http::StatusCode;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};
use onespace_crds::SyncPolicy;
use onespace_stores::causes::causes;
use serde_json::json;

use crate::place::ClusterArgs;
use crate::policy::Policy;

/// The owner of what is written.
const FIELD_MANAGER: &str = "kubectl-onespace";

/// An answer must be there by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Policies in one answer.
const PAGE: u32 = 500;

/// How often it is looked whether what was asked for has happened.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Namespace and name.
pub type Key = (String, String);

/// Why the cluster does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nothing says which cluster, or how to log in.
    #[error(
        "no cluster can be used ({0}): set KUBECONFIG, or name one with --kubeconfig and --context; an agent alone is asked with --agent URL"
    )]
    Unknown(String),
    /// No connection, or no answer.
    #[error(
        "the cluster at {server} does not answer ({cause}): is this the right context, and is there a way to it?"
    )]
    Unreachable {
        /// Its URL.
        server: String,
        /// What was seen.
        cause: String,
    },
    /// The resource is unknown there.
    #[error(
        "the cluster at {server} knows no SyncPolicies: install onespace there with its Helm chart, or its CRDs alone with kubectl apply -f crds/"
    )]
    NoCrd {
        /// Its URL.
        server: String,
    },
    /// RBAC says no.
    #[error(
        "you may not {verb} SyncPolicies {place}: have someone bind the ClusterRole {role} to you there ({message})"
    )]
    Forbidden {
        /// What was to be done.
        verb: &'static str,
        /// Where.
        place: String,
        /// The role of the chart with which one may.
        role: &'static str,
        /// The API server's words.
        message: String,
    },
    /// Not logged in, or no more.
    #[error("the cluster at {server} does not know you: log in anew, or name another context with --context")]
    Unauthorized {
        /// Its URL.
        server: String,
    },
    /// No such policy.
    #[error("there is no policy {namespace}/{name}: kubectl onespace status -A shows all that there are")]
    NoPolicy {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// Anything else.
    #[error("the cluster at {server} refuses: {message}")]
    Refused {
        /// Its URL.
        server: String,
        /// Its words.
        message: String,
    },
}

/// A cluster.
pub struct Cluster {
    client: Client,
    server: String,
    namespace: String,
}

impl Cluster {
    /// The cluster that options and kubeconfig name.
    ///
    /// # Errors
    /// None is named, or its entry cannot be used.
    pub async fn connect(args: &ClusterArgs) -> Result<Self, ClusterError> {
        let ClusterArgs {
            namespace,
            kubeconfig,
            context,
        } = args;
        let options = KubeConfigOptions {
            context: context.clone(),
            ..KubeConfigOptions::default()
        };
        let unknown = |error: &(dyn std::error::Error + 'static)| ClusterError::Unknown(causes(error));
        let config = match (kubeconfig, context) {
            (Some(file), _) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(|error| unknown(&error))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await,
            // In a pod there is no kubeconfig.
            (None, None) => Ok(Config::infer().await.map_err(|error| unknown(&error))?),
        };
        let config = config.map_err(|error| unknown(&error))?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| unknown(&error))?;
        Ok(Self {
            client,
            server,
            namespace,
        })
    }

    /// The namespace that is meant where none is named.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// All policies of a namespace, or of all.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn list(&self, namespace: Option<&str>) -> Result<Vec<DynamicObject>, ClusterError> {
        let resource = resource();
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let mut policies = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = self.within(api.list(&page)).await?;
            let list = listed.map_err(|error| self.explain(&error, "list", namespace, None))?;
            policies.extend(list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(policies),
            }
        }
    }

    /// One policy.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn get(&self, (namespace, name): &Key) -> Result<Policy, ClusterError> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource());
        let policy = self.within(api.get(name)).await?;
        let policy = policy.map_err(|error| self.explain(&error, "get", Some(namespace), Some(name)))?;
        Ok(Policy::read(&policy))
    }

    /// Gives a policy an annotation.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn annotate(
        &self,
        (namespace, name): &Key,
        annotation: &str,
        value: &str,
    ) -> Result<(), ClusterError> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource());
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        let manager = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(&patch);
        let patched = self.within(api.patch_metadata(name, &manager, &patch)).await?;
        patched.map_err(|error| self.explain(&error, "patch", Some(namespace), Some(name)))?;
        Ok(())
    }

    /// Waits until a policy is as wanted. Returns how it is then, or how it is when time is up.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn until(
        &self,
        key: &Key,
        patience: Duration,
        is_done: impl Fn(&Policy) -> bool,
    ) -> Result<Result<Policy, Policy>, ClusterError> {
        let deadline = Instant::now() + patience;
        loop {
            let policy = self.get(key).await?;
            if is_done(&policy) {
                return Ok(Ok(policy));
            }
            if Instant::now() >= deadline {
                return Ok(Err(policy));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn within<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, ClusterError> {
        let answer = tokio::time::timeout(PATIENCE, request).await;
        answer.map_err(|_| ClusterError::Unreachable {
            server: self.server.clone(),
            cause: format!("no answer within {PATIENCE:?}"),
        })
    }

    fn explain(
        &self,
        error: &Error,
        verb: &'static str,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> ClusterError {
        explain(error, &self.server, verb, namespace, name)
    }
}

fn resource() -> ApiResource {
    ApiResource::erase::<SyncPolicy>(&())
}

/// What an error means, and what to do.
fn explain(
    error: &Error,
    server: &str,
    verb: &'static str,
    namespace: Option<&str>,
    name: Option<&str>,
) -> ClusterError {
    let server = server.to_owned();
    let Error::Api(status) = error else {
        return ClusterError::Unreachable {
            server,
            cause: causes(error),
        };
    };
    match (StatusCode::from_u16(status.code), name) {
        (Ok(StatusCode::UNAUTHORIZED), _) => ClusterError::Unauthorized { server },
        (Ok(StatusCode::FORBIDDEN), _) => ClusterError::Forbidden {
            verb,
            place: namespace.map_or_else(
                || "of all namespaces".to_owned(),
                |namespace| format!("in namespace {namespace}"),
            ),
            role: if verb == "patch" { "edit" } else { "view" },
            message: status.message.clone(),
        },
        // Of a policy that is missing it says the name; an unknown resource is a page that is not found.
        (Ok(StatusCode::NOT_FOUND), Some(name))
            if status
                .details
                .as_ref()
                .is_some_and(|details| details.name == name) =>
        {
            ClusterError::NoPolicy {
                namespace: namespace.unwrap_or_default().to_owned(),
                name: name.to_owned(),
            }
        }
        (Ok(StatusCode::NOT_FOUND), _) => ClusterError::NoCrd { server },
        _ => ClusterError::Refused {
            server,
            message: status.message.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, name: &str) -> Error {
        let status = json!({"code": code, "message": "its words", "details": {"name": name}});
        Error::Api(serde_json::from_value(status).unwrap())
    }

    #[test]
    fn a_refusal_says_what_to_do_about_it() {
        let said = |code, in_details, verb, name| {
            explain(
                &refusal(code, in_details),
                "https://k8s:6443",
                verb,
                Some("swift"),
                name,
            )
            .to_string()
        };
        let missing = said(404, "photos", "get", Some("photos"));
        assert!(missing.contains("no policy swift/photos"), "{missing}");
        for no_crd in [said(404, "", "get", Some("photos")), said(404, "", "list", None)] {
            assert!(no_crd.contains("kubectl apply -f crds/"), "{no_crd}");
        }
        let may_not = said(403, "photos", "patch", Some("photos"));
        assert!(
            may_not.contains("you may not patch") && may_not.contains("ClusterRole edit"),
            "{may_not}"
        );
        let may_not = said(403, "", "list", None);
        assert!(may_not.contains("ClusterRole view"), "{may_not}");
        assert!(said(401, "", "list", None).contains("log in"));
        assert!(said(500, "", "list", None).contains("its words"));
    }
}
