//! A real Swift on this machine: memcached, nodes with account, container and object servers, the proxy that users
//! talk to, and the internal endpoint. Ready in a few seconds, in a folder of its own, gone without a trace when
//! dropped.

mod access;
mod config;
mod daemon;
mod files;
mod node;
mod options;
mod process;
mod replica;
mod user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use self::config::Ports;
use self::node::object_configuration;
use self::process::Process;
use crate::http::Http;
use crate::ports::free_port;

pub use self::access::Access;
pub use self::daemon::Daemon;
pub use self::files::make_rings;
pub use self::node::Node;
pub use self::options::{Encryption, Options, Place, Scheme, StoragePolicy};
pub use self::replica::{Backup, Replica};
pub use self::user::{NO_HEADERS, Segment, User, quote};

/// One server of the cluster. Nodes count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// Where tokens and cached container facts are kept.
    Memcached,
    /// The account server of a node.
    Account(usize),
    /// The container server of a node.
    Container(usize),
    /// One of the object servers, counted over all nodes.
    Object(usize),
    /// The proxy that users talk to.
    Public,
    /// The internal endpoint.
    Internal,
}

/// A running cluster.
#[derive(Debug)]
pub struct Swift {
    // Before the folder: processes end first.
    processes: Mutex<BTreeMap<Server, Process>>,
    ports: Ports,
    nodes: Vec<Node>,
    options: Options,
    http: Http,
    path: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Swift {
    /// Starts a cluster and waits until every server answers.
    ///
    /// # Errors
    /// The tools are missing, or a server did not become ready; the message has the end of its log.
    pub async fn start(options: Options) -> Result<Self> {
        let (folder, path) = match &options.folder {
            Some(path) => {
                std::fs::create_dir_all(path)?;
                (None, path.canonicalize()?)
            }
            None => {
                let folder = temporary_folder()?;
                std::fs::write(folder.path().join(".temporary"), "")?;
                let path = folder.path().to_owned();
                (Some(folder), path)
            }
        };
        let ports = Ports {
            memcached: free_port()?,
            public: free_port()?,
            internal: free_port()?,
        };
        let nodes = (0..options.nodes as usize)
            .map(|number| Node::new(&path, number, &options))
            .collect::<Result<_>>()?;
        let swift = Self {
            processes: Mutex::default(),
            ports,
            nodes,
            options,
            http: Http::default(),
            path,
            _folder: folder,
        };
        swift.write_files()?;
        swift.start_all(&swift.servers()).await?;
        Ok(swift)
    }

    /// Address of the memcached of this cluster.
    #[must_use]
    pub fn memcached(&self) -> String {
        format!("127.0.0.1:{}", self.ports.memcached)
    }

    /// Every server of this cluster.
    #[must_use]
    pub fn servers(&self) -> Vec<Server> {
        let nodes = (0..self.nodes.len()).flat_map(|node| self.servers_of(node));
        std::iter::once(Server::Memcached)
            .chain(nodes)
            .chain([Server::Public, Server::Internal])
            .collect()
    }

    fn servers_of(&self, node: usize) -> Vec<Server> {
        let each = self.options.object_servers as usize;
        let mut servers = vec![Server::Account(node), Server::Container(node)];
        servers.extend((node * each..(node + 1) * each).map(Server::Object));
        servers
    }

    /// The cluster's folder: `etc` and `log` of what it has once, and a folder for each node.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    fn first(&self) -> &Node {
        &self.nodes[0]
    }

    /// [`Node::swift_dir`] of the first node, which mostly is the only one.
    #[must_use]
    pub fn swift_dir(&self) -> PathBuf {
        self.first().swift_dir()
    }

    /// [`Node::devices`] of the first node.
    #[must_use]
    pub fn devices(&self) -> PathBuf {
        self.first().devices()
    }

    /// [`Node::container_server`] of the first node.
    #[must_use]
    pub fn container_server(&self) -> String {
        self.first().container_server()
    }

    /// URL of the internal endpoint, without a path.
    #[must_use]
    pub fn internal_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.internal)
    }

    /// URL of the proxy that users talk to, without a path.
    #[must_use]
    pub fn public_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.public)
    }

    /// The user `test:tester`, owner of the account AUTH_test, through the public proxy.
    ///
    /// # Errors
    /// No token was given.
    pub async fn user(&self) -> Result<User> {
        self.user_with("test", "tester", "testing").await
    }

    /// The user `test2:tester2`, owner of the account AUTH_test2.
    ///
    /// # Errors
    /// No token was given.
    pub async fn second_user(&self) -> Result<User> {
        self.user_with("test2", "tester2", "testing2").await
    }

    async fn user_with(&self, account: &str, user: &str, key: &str) -> Result<User> {
        User::log_in(&self.http, &self.public_endpoint(), account, user, key).await
    }

    /// An account as the internal endpoint shows it: no login, every header.
    #[must_use]
    pub fn internal(&self, account: &str) -> User {
        User::without_login(&self.http, &self.internal_endpoint(), account)
    }

    /// What an S3 client needs for the bucket of user `test:tester` through s3api: endpoint, access key, secret key.
    #[must_use]
    pub fn s3api(&self) -> (String, &'static str, &'static str) {
        (self.public_endpoint(), "test:tester", "testing")
    }

    /// The requests that the internal endpoint has served so far.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn internal_requests(&self) -> Result<Vec<Access>> {
        access::read(&self.path.join("log/internal.log"))
    }

    /// The requests that the public proxy has served so far.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn public_requests(&self) -> Result<Vec<Access>> {
        access::read(&self.path.join("log/public.log"))
    }

    /// Stops one server at once; its data stay.
    pub fn stop(&self, server: Server) {
        self.running().remove(&server);
    }

    /// Stops every server of a node at once; its data stay.
    pub fn stop_node(&self, node: usize) {
        for server in self.servers_of(node) {
            self.stop(server);
        }
    }

    /// Starts a server that was stopped, and waits until it is ready.
    ///
    /// # Errors
    /// It did not become ready.
    pub async fn start_again(&self, server: Server) -> Result<()> {
        self.start_all(&[server]).await
    }

    /// Starts the servers of a node that do not run, and waits until they are ready.
    ///
    /// # Errors
    /// One did not become ready.
    pub async fn start_node(&self, node: usize) -> Result<()> {
        self.start_all(&self.servers_of(node)).await
    }

    /// Starts every server that does not run, and waits until they are ready.
    ///
    /// # Errors
    /// One did not become ready.
    pub async fn mend(&self) -> Result<()> {
        self.start_all(&self.servers()).await
    }

    /// Puts the middleware that decrypts into the internal endpoint, as an operator does who had forgotten it.
    ///
    /// # Errors
    /// The endpoint did not become ready again.
    pub async fn decrypt_at_the_endpoint(&self) -> Result<()> {
        let options = Options {
            encryption: Encryption::On,
            ..self.options.clone()
        };
        let folder = self.path.display().to_string();
        let text = config::internal_endpoint(&options, &self.ports, &folder);
        std::fs::write(self.configuration("internal-endpoint.conf"), text)?;
        self.stop(Server::Internal);
        self.start_again(Server::Internal).await
    }

    /// Runs one of Swift's command-line programs of the venv with this cluster's configuration and returns when it ended.
    ///
    /// # Errors
    /// It failed, or did not end in time.
    pub async fn run_program(&self, program: &str, arguments: &[String]) -> Result<()> {
        Process::start(&self.path, program, program, arguments)?
            .finished()
            .await
    }

    async fn start_all(&self, servers: &[Server]) -> Result<()> {
        let mut started = Vec::new();
        for server in servers {
            if !self.running().contains_key(server) {
                started.push((*server, self.spawn(*server)?));
            }
        }
        for (server, mut process) in started {
            let port = self.port(server);
            if server == Server::Memcached {
                process.listening(port).await?;
            } else {
                process
                    .ready(&self.http, &self.place(server).address, port)
                    .await?;
            }
            self.running().insert(server, process);
        }
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Server, Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where an object server is: its node, and its place among that node's.
    fn object_server(&self, index: usize) -> (&Node, usize) {
        let each = self.options.object_servers as usize;
        (&self.nodes[index / each], index % each)
    }

    fn spawn(&self, server: Server) -> Result<Process> {
        let (name, program, configuration) = match server {
            Server::Memcached => {
                let port = self.ports.memcached.to_string();
                // -u: as root it wants a user to become. Became it another one, the kernel would forget that it is to end with
                // the process that started it.
                let arguments = ["-l", "127.0.0.1", "-p", &port, "-U", "0", "-u", "root"];
                let arguments = arguments.map(str::to_owned);
                return Process::start(&self.path, "memcached", "memcached", &arguments);
            }
            Server::Account(node) => (
                format!("account-{node}"),
                "swift-account-server",
                self.nodes[node].configuration("account-server.conf"),
            ),
            Server::Container(node) => (
                format!("container-{node}"),
                "swift-container-server",
                self.nodes[node].configuration("container-server.conf"),
            ),
            Server::Object(index) => {
                let (node, at) = self.object_server(index);
                (
                    format!("object-{index}"),
                    "swift-object-server",
                    node.configuration(&object_configuration(at)),
                )
            }
            Server::Public => (
                "public".to_owned(),
                "swift-proxy-server",
                self.configuration("proxy-server.conf"),
            ),
            Server::Internal => (
                "internal".to_owned(),
                "swift-proxy-server",
                self.configuration("internal-endpoint.conf"),
            ),
        };
        Process::start_at(&self.place(server), &self.path, &name, program, &[configuration])
    }

    fn configuration(&self, name: &str) -> String {
        self.path.join("etc").join(name).display().to_string()
    }

    fn place(&self, server: Server) -> Place {
        match server {
            Server::Memcached | Server::Public | Server::Internal => Place::default(),
            Server::Account(node) | Server::Container(node) => self.nodes[node].place.clone(),
            Server::Object(index) => self.object_server(index).0.place.clone(),
        }
    }

    fn port(&self, server: Server) -> u16 {
        match server {
            Server::Memcached => self.ports.memcached,
            Server::Account(node) => self.nodes[node].account,
            Server::Container(node) => self.nodes[node].container,
            Server::Object(index) => {
                let (node, at) = self.object_server(index);
                node.objects[at]
            }
            Server::Public => self.ports.public,
            Server::Internal => self.ports.internal,
        }
    }
}

/// A temporary folder on a file system in memory, where there is one.
fn temporary_folder() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("onespace-swift-");
    Ok(if memory.is_dir() {
        builder.tempdir_in(memory)?
    } else {
        builder.tempdir()?
    })
}
