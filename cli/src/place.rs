//! Where a command works: at one agent, or in a cluster.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// The agent that is asked where none is named.
pub const LOCAL_AGENT: &str = "http://127.0.0.1:9181";

/// A command line that cannot be meant: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Which agent, or which cluster.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Place {
    /// An agent's `--status-listen`. Without it `onespace` asks the agent at http://127.0.0.1:9181, unless an option names a
    /// cluster, and `kubectl onespace` the cluster.
    #[arg(
        long,
        value_name = "URL",
        env = "ONESPACE_AGENT",
        conflicts_with_all = ["namespace", "kubeconfig", "context"]
    )]
    pub agent: Option<String>,
    /// Folder with ca.crt, tls.crt and tls.key (PEM), with which an agent at https is asked: one with --status-tls.
    #[arg(long, value_name = "DIR", env = "ONESPACE_TLS")]
    pub tls: Option<PathBuf>,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Which cluster, and where in it. Found as kubectl finds it: KUBECONFIG, ~/.kube/config, or a pod's service account.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct ClusterArgs {
    /// Namespace in the cluster. Default: that of the kubeconfig's context.
    #[arg(short = 'n', long, value_name = "NAME", env = "ONESPACE_NAMESPACE")]
    pub namespace: Option<String>,
    /// The kubeconfig that names the cluster.
    #[arg(long, value_name = "FILE", env = "ONESPACE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context.
    #[arg(long, value_name = "NAME", env = "ONESPACE_CONTEXT")]
    pub context: Option<String>,
}

impl Place {
    /// Whether the cluster is meant. `plugin`: kubectl has called.
    #[must_use]
    pub fn is_cluster(&self, plugin: bool) -> bool {
        self.agent.is_none() && (plugin || self.cluster.is_named())
    }

    /// The agent's URL.
    #[must_use]
    pub fn agent(&self) -> &str {
        self.agent.as_deref().unwrap_or(LOCAL_AGENT)
    }
}

impl ClusterArgs {
    /// Whether an option names a cluster.
    #[must_use]
    pub fn is_named(&self) -> bool {
        let Self {
            namespace,
            kubeconfig,
            context,
        } = self;
        namespace.is_some() || kubeconfig.is_some() || context.is_some()
    }

    /// Namespace and name of a policy that was given as `[NAMESPACE/]NAME`. `default` is the context's namespace.
    ///
    /// # Errors
    /// Two namespaces are named, or it is no name.
    pub fn policy(&self, given: &str, default: &str) -> Result<(String, String), Usage> {
        let (namespace, name) = match given.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, given),
        };
        // What is no name would become part of a path.
        let is_name =
            |text: &str| !text.is_empty() && !text.contains(|char: char| char == '/' || char.is_control());
        if !is_name(name) || !namespace.is_none_or(is_name) {
            return Err(Usage(format!("{given:?} is no policy: write NAMESPACE/NAME")));
        }
        let namespace = match (namespace, self.namespace.as_deref()) {
            (Some(one), Some(other)) if one != other => {
                return Err(Usage(format!(
                    "{given} is not in --namespace {other}: leave one of them out"
                )));
            }
            (one, other) => one.or(other).unwrap_or(default),
        };
        Ok((namespace.to_owned(), name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_means_the_cluster_and_onespace_an_agent_unless_told_otherwise() {
        let nothing = Place::default();
        assert!(nothing.is_cluster(true));
        assert!(!nothing.is_cluster(false));
        assert_eq!(nothing.agent(), LOCAL_AGENT);
        let named = Place {
            agent: Some("http://n1:9181".to_owned()),
            ..Place::default()
        };
        assert!(!named.is_cluster(true));
        let cluster = Place {
            cluster: ClusterArgs {
                context: Some("test".to_owned()),
                ..ClusterArgs::default()
            },
            ..Place::default()
        };
        assert!(cluster.is_cluster(false));
    }

    #[test]
    fn a_policy_has_one_namespace() {
        let swift = ClusterArgs {
            namespace: Some("swift".to_owned()),
            ..ClusterArgs::default()
        };
        let none = ClusterArgs::default();
        let key = |namespace: &str| (namespace.to_owned(), "photos".to_owned());
        assert_eq!(none.policy("photos", "default").unwrap(), key("default"));
        assert_eq!(none.policy("swift/photos", "default").unwrap(), key("swift"));
        assert_eq!(swift.policy("photos", "default").unwrap(), key("swift"));
        assert_eq!(swift.policy("swift/photos", "default").unwrap(), key("swift"));
        for wrong in ["other/photos", "", "swift/", "/photos", "swift/photos/x"] {
            assert!(swift.policy(wrong, "default").is_err(), "{wrong}");
        }
    }
}
