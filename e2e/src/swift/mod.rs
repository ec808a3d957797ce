//! A real Swift on this machine: memcached, account, container and object servers, the proxy that users talk to,
//! and the internal endpoint. Ready in a few seconds, in a folder of its own, gone without a trace when dropped.

mod access;
mod config;
mod process;
mod user;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::config::Ports;
use self::process::Process;
use crate::http::Http;
use crate::ports::free_port;
use crate::tools::tool;

pub use self::access::Access;
pub use self::user::{NO_HEADERS, Segment, User, quote};

/// Whether objects are encrypted at rest, and who can read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// They are not.
    #[default]
    Off,
    /// They are; the internal endpoint decrypts.
    On,
    /// They are, and someone forgot the middleware in the internal endpoint: it hands out ciphertext.
    EndpointCannotDecrypt,
}

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Replicas of every ring.
    pub replicas: f64,
    /// Devices of each object server; the container and account servers use all of them.
    pub devices: u32,
    /// Object servers, each with devices of its own.
    pub object_servers: u32,
    /// Names of the storage policies; the first is the default one.
    pub policies: Vec<String>,
    /// Rings have 2^this partitions.
    pub part_power: u32,
    /// Encryption at rest.
    pub encryption: Encryption,
    /// `swift_hash_path_prefix`.
    pub hash_prefix: String,
    /// `swift_hash_path_suffix`.
    pub hash_suffix: String,
    /// Where to keep it; it stays there. Object files need room in extended attributes, which not every file
    /// system has. Absent: a temporary folder in memory.
    pub folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replicas: 1.0,
            devices: 1,
            object_servers: 1,
            policies: vec!["gold".to_owned()],
            part_power: 6,
            encryption: Encryption::Off,
            hash_prefix: "onespace-prefix".to_owned(),
            hash_suffix: "onespace-suffix".to_owned(),
            folder: None,
        }
    }
}

/// One server of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// Where tokens and cached container facts are kept.
    Memcached,
    /// The account server.
    Account,
    /// The container server.
    Container,
    /// One of the object servers, from 0.
    Object(usize),
    /// The proxy that users talk to.
    Public,
    /// The internal endpoint.
    Internal,
}

/// A daemon that runs one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// Pushes rows between replicas; removes reclaimed tombstones.
    ContainerReplicator,
    /// Tells the account about the container's counts.
    ContainerUpdater,
    /// Delivers container updates that failed when the object was stored.
    ObjectUpdater,
    /// Pushes objects between replicas.
    ObjectReplicator,
    /// Removes expired objects.
    ObjectExpirer,
}

/// A running cluster.
#[derive(Debug)]
pub struct Swift {
    // Before the folder: processes end first.
    processes: BTreeMap<Server, Process>,
    ports: Ports,
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
            account: free_port()?,
            container: free_port()?,
            objects: (0..options.object_servers)
                .map(|_| free_port())
                .collect::<Result<_>>()?,
            public: free_port()?,
            internal: free_port()?,
        };
        let mut swift = Self {
            processes: BTreeMap::new(),
            ports,
            options,
            http: Http::default(),
            path,
            _folder: folder,
        };
        swift.write_configuration()?;
        swift.make_rings()?;
        let servers = swift.servers();
        for server in &servers {
            swift.spawn(*server)?;
        }
        for server in servers {
            swift.ready(server).await?;
        }
        Ok(swift)
    }

    /// Every server of this cluster.
    #[must_use]
    pub fn servers(&self) -> Vec<Server> {
        let mut servers = vec![Server::Memcached, Server::Account, Server::Container];
        servers.extend((0..self.ports.objects.len()).map(Server::Object));
        servers.extend([Server::Public, Server::Internal]);
        servers
    }

    /// The cluster's folder: `etc`, `devices`, `log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// What an agent gets as `--swift-dir`: swift.conf, rings, container-server.conf.
    #[must_use]
    pub fn swift_dir(&self) -> PathBuf {
        self.path.join("etc")
    }

    /// What an agent gets as `--devices`.
    #[must_use]
    pub fn devices(&self) -> PathBuf {
        self.path.join("devices")
    }

    /// The names of the devices.
    #[must_use]
    pub fn device_names(&self) -> Vec<String> {
        (0..self.options.object_servers * self.options.devices)
            .map(|n| format!("d{n}"))
            .collect()
    }

    /// The container server as the ring names it, `ip:port`.
    #[must_use]
    pub fn container_server(&self) -> String {
        format!("127.0.0.1:{}", self.ports.container)
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
    pub fn stop(&mut self, server: Server) {
        self.processes.remove(&server);
    }

    /// Starts a server that was stopped, and waits until it is ready.
    ///
    /// # Errors
    /// It did not become ready.
    pub async fn start_again(&mut self, server: Server) -> Result<()> {
        self.spawn(server)?;
        self.ready(server).await
    }

    /// Runs one pass of a daemon.
    ///
    /// # Errors
    /// It failed, or did not end in time.
    pub async fn run_once(&self, daemon: Daemon) -> Result<()> {
        let (program, configurations) = match daemon {
            Daemon::ContainerReplicator => (
                "swift-container-replicator",
                vec!["container-server.conf".to_owned()],
            ),
            Daemon::ContainerUpdater => (
                "swift-container-updater",
                vec!["container-server.conf".to_owned()],
            ),
            Daemon::ObjectUpdater => ("swift-object-updater", self.object_configurations()),
            Daemon::ObjectReplicator => ("swift-object-replicator", self.object_configurations()),
            Daemon::ObjectExpirer => ("swift-object-expirer", vec!["object-expirer.conf".to_owned()]),
        };
        for configuration in configurations {
            let arguments = [self.configuration(&configuration), "once".to_owned()];
            Process::start(&self.path, program, program, &arguments)?
                .finished()
                .await?;
        }
        Ok(())
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

    fn object_configurations(&self) -> Vec<String> {
        (0..self.ports.objects.len()).map(object_configuration).collect()
    }

    fn configuration(&self, name: &str) -> String {
        self.path.join("etc").join(name).display().to_string()
    }

    fn write_configuration(&self) -> Result<()> {
        let folder = self.path.display().to_string();
        for name in ["etc", "log", "cache", "devices"] {
            std::fs::create_dir_all(self.path.join(name))?;
        }
        for device in self.device_names() {
            std::fs::create_dir_all(self.devices().join(device))?;
        }
        let (options, ports) = (&self.options, &self.ports);
        let mut files = vec![
            ("swift.conf".to_owned(), config::swift_conf(options)),
            (
                "account-server.conf".to_owned(),
                config::storage_server("account", ports.account, &folder),
            ),
            (
                "container-server.conf".to_owned(),
                config::storage_server("container", ports.container, &folder),
            ),
            (
                "proxy-server.conf".to_owned(),
                config::public_proxy(options, ports, &folder),
            ),
            (
                "internal-endpoint.conf".to_owned(),
                config::internal_endpoint(options, ports, &folder),
            ),
            ("object-expirer.conf".to_owned(), config::expirer(ports, &folder)),
        ];
        for (index, port) in ports.objects.iter().enumerate() {
            files.push((
                object_configuration(index),
                config::storage_server("object", *port, &folder),
            ));
        }
        for (name, text) in files {
            // Bytes beyond ASCII in a hash prefix are written as Swift reads them: latin-1.
            let bytes: Vec<u8> = text
                .chars()
                .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
                .collect();
            std::fs::write(self.path.join("etc").join(&name), bytes).with_context(|| name)?;
        }
        std::fs::write(self.path.join("run.py"), include_str!("run.py"))?;
        Ok(())
    }

    fn make_rings(&self) -> Result<()> {
        let names = self.device_names();
        let per_server = self.options.devices as usize;
        let ring = |name: &str, port_of: &dyn Fn(usize) -> u16| {
            let devices: Vec<_> = names
                .iter()
                .enumerate()
                .map(|(at, device)| {
                    json!({"region": 1, "zone": at / per_server + 1, "ip": "127.0.0.1", "port": port_of(at),
                           "device": device, "weight": 100})
                })
                .collect();
            json!({"path": self.path.join("etc").join(format!("{name}.ring.gz")), "partPower": self.options.part_power,
                   "replicas": self.options.replicas, "devices": devices})
        };
        let object_port = |at: usize| self.ports.objects[at / per_server];
        let mut rings = vec![
            ring("account", &|_| self.ports.account),
            ring("container", &|_| self.ports.container),
            ring("object", &object_port),
        ];
        for index in 1..self.options.policies.len() {
            rings.push(ring(&format!("object-{index}"), &object_port));
        }
        make_rings(&json!(rings))
    }

    fn spawn(&mut self, server: Server) -> Result<()> {
        let (name, program, arguments) = match server {
            Server::Memcached => (
                "memcached".to_owned(),
                "memcached",
                // -u: memcached refuses to run as root without a name.
                [
                    "-l",
                    "127.0.0.1",
                    "-p",
                    &self.ports.memcached.to_string(),
                    "-U",
                    "0",
                    "-u",
                    "nobody",
                ]
                .map(str::to_owned)
                .to_vec(),
            ),
            Server::Account => self.program("account", "swift-account-server", "account-server.conf"),
            Server::Container => self.program("container", "swift-container-server", "container-server.conf"),
            Server::Object(index) => self.program(
                &format!("object-{index}"),
                "swift-object-server",
                &object_configuration(index),
            ),
            Server::Public => self.program("public", "swift-proxy-server", "proxy-server.conf"),
            Server::Internal => self.program("internal", "swift-proxy-server", "internal-endpoint.conf"),
        };
        let process = Process::start(&self.path, &name, program, &arguments)?;
        self.processes.insert(server, process);
        Ok(())
    }

    fn program(
        &self,
        name: &str,
        program: &'static str,
        configuration: &str,
    ) -> (String, &'static str, Vec<String>) {
        (name.to_owned(), program, vec![self.configuration(configuration)])
    }

    async fn ready(&mut self, server: Server) -> Result<()> {
        let port = match server {
            Server::Memcached => self.ports.memcached,
            Server::Account => self.ports.account,
            Server::Container => self.ports.container,
            Server::Object(index) => self.ports.objects[index],
            Server::Public => self.ports.public,
            Server::Internal => self.ports.internal,
        };
        let process = self
            .processes
            .get_mut(&server)
            .context("the server was not started")?;
        if server == Server::Memcached {
            process.listening(port).await
        } else {
            process.ready(&self.http, port).await
        }
    }
}

fn object_configuration(index: usize) -> String {
    if index == 0 {
        "object-server.conf".to_owned()
    } else {
        format!("object-server-{index}.conf")
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

/// Makes rings with Swift's own builder; `rings.py` says what a ring's description is.
///
/// # Errors
/// The builder refused.
pub fn make_rings(rings: &serde_json::Value) -> Result<()> {
    let mut child = Command::new(tool("venv/bin/python")?)
        .args(["-W", "ignore", "-c", include_str!("rings.py")])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rings.to_string().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "the ring builder failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
