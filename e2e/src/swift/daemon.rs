//! Swift's daemons, one pass at a time.

use anyhow::{Result, ensure};

use super::Swift;
use super::node::Node;
use super::process::Process;

/// A daemon that runs one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// Pushes rows between replicas; removes reclaimed tombstones; queues objects of a wrong policy.
    ContainerReplicator,
    /// Tells the account about the container's counts.
    ContainerUpdater,
    /// Looks into container databases for damage.
    ContainerAuditor,
    /// Splits containers into shards where that is asked for, and moves their rows.
    ContainerSharder,
    /// Moves objects into the storage policy of their container.
    ContainerReconciler,
    /// Delivers container updates that failed when the object was stored.
    ObjectUpdater,
    /// Pushes objects between replicas.
    ObjectReplicator,
    /// Rebuilds lost fragments of erasure-coded objects.
    ObjectReconstructor,
    /// Looks into objects for damage.
    ObjectAuditor,
    /// Removes expired objects.
    ObjectExpirer,
}

/// What a daemon's configuration belongs to.
enum Scope {
    Containers,
    Objects,
    Cluster(&'static str),
}

impl Daemon {
    fn program(self) -> (&'static str, Scope) {
        match self {
            Self::ContainerReplicator => ("swift-container-replicator", Scope::Containers),
            Self::ContainerUpdater => ("swift-container-updater", Scope::Containers),
            Self::ContainerAuditor => ("swift-container-auditor", Scope::Containers),
            Self::ContainerSharder => ("swift-container-sharder", Scope::Containers),
            Self::ContainerReconciler => (
                "swift-container-reconciler",
                Scope::Cluster("container-reconciler.conf"),
            ),
            Self::ObjectUpdater => ("swift-object-updater", Scope::Objects),
            Self::ObjectReplicator => ("swift-object-replicator", Scope::Objects),
            Self::ObjectReconstructor => ("swift-object-reconstructor", Scope::Objects),
            Self::ObjectAuditor => ("swift-object-auditor", Scope::Objects),
            Self::ObjectExpirer => ("swift-object-expirer", Scope::Cluster("object-expirer.conf")),
        }
    }
}

impl Swift {
    /// Runs one pass of a daemon on every node, at the same time.
    ///
    /// # Errors
    /// It failed, or did not end in time.
    pub async fn run_once(&self, daemon: Daemon) -> Result<()> {
        let nodes: Vec<_> = (0..self.nodes().len()).collect();
        self.run_once_on(daemon, &nodes).await
    }

    /// Runs one pass of a daemon on these nodes, at the same time. One that serves the whole cluster runs once.
    ///
    /// # Errors
    /// It failed, or did not end in time.
    pub async fn run_once_on(&self, daemon: Daemon, nodes: &[usize]) -> Result<()> {
        ensure!(!nodes.is_empty(), "on which node?");
        let (program, scope) = daemon.program();
        let of_nodes = |files: &dyn Fn(&Node) -> Vec<String>| -> Vec<String> {
            let nodes = nodes.iter().map(|number| &self.nodes()[*number]);
            nodes
                .flat_map(|node| files(node).into_iter().map(|name| node.configuration(&name)))
                .collect()
        };
        let configurations = match scope {
            Scope::Containers => of_nodes(&|_| vec!["container-server.conf".to_owned()]),
            Scope::Objects => of_nodes(&Node::object_configurations),
            Scope::Cluster(name) => vec![self.configuration(name)],
        };
        let started: Vec<_> = configurations
            .into_iter()
            .map(|configuration| {
                let arguments = [configuration, "once".to_owned()];
                Process::start(self.folder(), program, program, &arguments)
            })
            .collect::<Result<_>>()?;
        for process in started {
            process.finished().await?;
        }
        Ok(())
    }
}
