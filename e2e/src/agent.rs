//! The node agent as a process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use onespace_core::report::{MappingReport, Report, RunState};

use crate::http::{Http, Method};
use crate::policies::Policies;
use crate::ports::free_port;
use crate::programs::program;
use crate::swift::Swift;

/// How long anything may take that the agent should do by itself. Generous: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Replaces Swift's internal endpoint.
    pub internal_endpoint: Option<String>,
    /// `--verification-slack`.
    pub slack: &'static str,
    /// `--deny-remote`.
    pub deny_remote: Vec<&'static str>,
    /// `--held-rows`.
    pub held_rows: u64,
    /// `--status-tls`.
    pub status_tls: Option<PathBuf>,
    /// Makes [`Agent::limit_files`] work.
    pub files_can_be_limited: bool,
    /// How many seconds the clock of each node's agent is ahead (or behind) of this machine's; those not named are right.
    pub clocks: Vec<i64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            internal_endpoint: None,
            slack: "60m",
            deny_remote: Vec::new(),
            held_rows: 10_000,
            status_tls: None,
            files_can_be_limited: false,
            clocks: Vec::new(),
        }
    }
}

/// What an agent is started with.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The cluster.
    pub swift: &'a Swift,
    /// The number of its node.
    pub node: usize,
    /// Mappings and credentials.
    pub policies: &'a Policies,
    /// `--state`.
    pub state: &'a Path,
    /// The rest.
    pub settings: &'a Settings,
}

/// An agent that was started. Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
    health: u16,
    status: u16,
    http: Http,
}

impl Agent {
    /// Starts an agent and waits until it has loaded its mappings.
    ///
    /// # Errors
    /// It ended, or did not become ready.
    pub async fn start(launch: &Launch<'_>) -> Result<Self> {
        Self::spawn(launch, &[])?.answering("/readyz").await
    }

    /// Starts an agent and waits until it lives, loaded mappings or not.
    ///
    /// # Errors
    /// It ended, or did not come to life.
    pub async fn start_unready(launch: &Launch<'_>) -> Result<Self> {
        Self::spawn(launch, &[])?.answering("/livez").await
    }

    async fn answering(mut self, path: &str) -> Result<Self> {
        let url = format!("http://127.0.0.1:{}{path}", self.health);
        self.until(path, async |agent| {
            let answer = agent.http.send::<&str>(Method::GET, &url, &[], "").await;
            Ok(answer
                .is_ok_and(|answer| answer.status.is_success())
                .then_some(()))
        })
        .await?;
        Ok(self)
    }

    /// Runs an agent with `--once`, and returns how it ended.
    ///
    /// # Errors
    /// It did not end.
    pub async fn once(launch: &Launch<'_>) -> Result<(ExitStatus, String)> {
        let mut agent = Self::spawn(launch, &["--once"])?;
        let status = agent.ended(DEADLINE).await?;
        Ok((status, agent.said()))
    }

    /// Runs an agent with `--once`, and ends it by a signal when its log has this; its exit status and log.
    ///
    /// # Errors
    /// It did not start, did not say so, or did not end.
    pub async fn once_until(launch: &Launch<'_>, said: &str) -> Result<(ExitStatus, String)> {
        let agent = Self::spawn(launch, &["--once"])?;
        let deadline = Instant::now() + DEADLINE;
        while !agent.said().contains(said) {
            if Instant::now() > deadline {
                bail!("it never said {said:?}: {}", agent.said());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = agent.log.clone();
        let status = agent.stop().await?;
        Ok((status, std::fs::read_to_string(log)?))
    }

    pub(crate) fn spawn(launch: &Launch<'_>, more: &[&str]) -> Result<Self> {
        let Launch {
            swift,
            node,
            policies,
            state,
            settings,
        } = *launch;
        let clock = settings.clocks.get(node).copied().unwrap_or_default();
        let node = &swift.nodes()[node];
        let (health, status) = (free_port()?, free_port()?);
        std::fs::create_dir_all(state)?;
        let log = state.with_extension("log");
        let file = File::options().create(true).append(true).open(&log)?;
        let endpoint = settings
            .internal_endpoint
            .clone()
            .unwrap_or_else(|| swift.internal_endpoint());
        let agent = program("onespace-node-agent")?;
        let mut command = if settings.files_can_be_limited {
            // Beyond the limit a write shall fail, and not end the process.
            let mut shell = Command::new("sh");
            shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(agent);
            shell
        } else {
            Command::new(agent)
        };
        if clock != 0 {
            command
                .env("LD_PRELOAD", other_clock()?)
                .env("FAKETIME", format!("{clock:+}s"))
                // Clocks that only measure are always right.
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        command
            .arg("--swift-dir")
            .arg(node.swift_dir())
            .arg("--devices")
            .arg(node.devices())
            .args(["--container-server", &node.container_server()])
            .args(["--internal-endpoint", &endpoint])
            .arg("--mappings")
            .arg(policies.mappings())
            .arg("--credentials")
            .arg(policies.credentials())
            .arg("--state")
            .arg(state)
            .args(["--listen", &format!("127.0.0.1:{health}")])
            .args(["--status-listen", &format!("127.0.0.1:{status}")])
            .args(["--verification-slack", settings.slack])
            .args(["--held-rows", &settings.held_rows.to_string()])
            .args(
                settings
                    .deny_remote
                    .iter()
                    .flat_map(|network| ["--deny-remote", network]),
            )
            .args(
                settings
                    .status_tls
                    .iter()
                    .flat_map(|folder| [Path::new("--status-tls"), folder]),
            )
            .args(more)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command.spawn().context("onespace-node-agent")?;
        Ok(Self {
            child,
            log,
            health,
            status,
            http: Http::default(),
        })
    }

    /// What it logged so far.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The agent's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `GET` on its health server.
    ///
    /// # Errors
    /// No answer.
    pub async fn health(&self, path: &str) -> Result<(u16, String)> {
        self.get(self.health, path).await
    }

    /// Its status server's URL.
    #[must_use]
    pub fn status_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.status)
    }

    /// Its status server's port.
    #[must_use]
    pub fn status_port(&self) -> u16 {
        self.status
    }

    async fn get(&self, port: u16, path: &str) -> Result<(u16, String)> {
        let answer = self
            .http
            .send::<&str>(Method::GET, &format!("http://127.0.0.1:{port}{path}"), &[], "")
            .await?;
        Ok((
            answer.status.as_u16(),
            String::from_utf8_lossy(&answer.body).into_owned(),
        ))
    }

    /// Its whole report.
    ///
    /// # Errors
    /// No answer, or one that cannot be read.
    pub async fn report(&self) -> Result<Report> {
        let (_, body) = self.get(self.status, "/status").await?;
        serde_json::from_str(&body).with_context(|| body)
    }

    /// The report of the policy of this name.
    ///
    /// # Errors
    /// As [`Agent::report`]; or no such policy runs.
    pub async fn policy(&self, name: &str) -> Result<MappingReport> {
        let report = self.report().await?;
        let found = report
            .mappings
            .iter()
            .find(|mapping| mapping.policy.as_ref().is_some_and(|policy| policy.name == name));
        found
            .cloned()
            .with_context(|| format!("{name} does not run: {report:?}"))
    }

    /// Asks for held rows to be tried again.
    ///
    /// # Errors
    /// Refused.
    pub async fn retry(&self, policy: &str) -> Result<()> {
        let id = self.policy(policy).await?.id;
        let body = serde_json::json!({ "id": id }).to_string();
        self.http
            .send::<&str>(Method::POST, &format!("{}/retry", self.status_url()), &[], body)
            .await?
            .success()?;
        Ok(())
    }

    /// Waits until this yields something.
    ///
    /// # Errors
    /// It never did; the message has the end of the agent's log.
    pub async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look(self).await? {
                return Ok(found);
            }
            self.still_runs(what)?;
            if Instant::now() > deadline {
                let report = self.report().await;
                bail!("not within {DEADLINE:?}: {what}\n{report:?}\n{}", self.said());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fails if it has ended.
    pub(crate) fn still_runs(&mut self, before: &str) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the agent ended ({status}) before: {before}\n{}", self.said());
        }
        Ok(())
    }

    /// The end of what it logged.
    pub(crate) fn said_last(&self) -> String {
        let said = self.said();
        let from = said.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
        said[from..].to_owned()
    }

    /// Waits until it runs the files as they are now.
    ///
    /// # Errors
    /// It never did.
    pub async fn until_loaded(&mut self, policies: &Policies) -> Result<()> {
        let index = std::fs::read(policies.mappings().join("index.json"))?;
        let index: serde_json::Value = serde_json::from_slice(&index)?;
        self.until("the files loaded", async |agent| {
            let report = agent.report().await?;
            Ok((index["revision"] == report.config.revision.as_str()).then_some(()))
        })
        .await
    }

    /// Waits until a policy is paused for this reason, then checks that `/metrics` says so, too.
    ///
    /// # Errors
    /// It never was.
    pub async fn until_paused(&mut self, name: &str, reason: &str) -> Result<MappingReport> {
        let report = self
            .until_policy(&format!("paused for {reason}"), name, |report| {
                report.state == RunState::Paused && report.reason.as_deref() == Some(reason)
            })
            .await?;
        let (_, metrics) = self.health("/metrics").await?;
        let line =
            format!(r#"onespace_mapping_paused{{name="{name}",namespace="swift",reason="{reason}"}} 1"#);
        anyhow::ensure!(
            metrics.contains(&line),
            "{line} is not among the metrics:\n{metrics}"
        );
        Ok(report)
    }

    /// Waits until a policy runs, every row is done or held, and nothing is left to read.
    ///
    /// # Errors
    /// It never was.
    pub async fn until_done(&mut self, name: &str) -> Result<MappingReport> {
        self.until_policy("every row done", name, |report| {
            report.state == RunState::Running
                && report.initial_pass_complete
                && report.pending.rows == 0
                && report.pending.exact
                && report.databases.open > 0
                && report.remote.probed_at.is_some()
        })
        .await
    }

    /// Waits until a policy's report is as wanted.
    ///
    /// # Errors
    /// It never was.
    pub async fn until_policy(
        &mut self,
        what: &str,
        name: &str,
        wanted: impl Fn(&MappingReport) -> bool,
    ) -> Result<MappingReport> {
        self.until(what, async |agent| {
            Ok(agent.policy(name).await.ok().filter(|report| wanted(report)))
        })
        .await
    }

    /// From now on no file of the agent's may grow beyond so many bytes: what a full disk looks like to it. None: no
    /// limit. Needs [`Settings::files_can_be_limited`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let status = Command::new("prlimit")
            .args(["--pid", &self.pid().to_string(), &format!("--fsize={limit}:")])
            .status()?;
        anyhow::ensure!(status.success(), "prlimit: {status}");
        Ok(())
    }

    /// Asks it to end, and returns how it did.
    ///
    /// # Errors
    /// It did not end.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        self.ended(DEADLINE).await
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the agent did not end within {within:?}\n{}", self.said());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The library that gives a process another time of day.
fn other_clock() -> Result<String> {
    let told = Command::new("faketime")
        .args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"])
        .output()
        .context("faketime; scripts/prepare installs it")?;
    let library = String::from_utf8(told.stdout)?.trim().to_owned();
    anyhow::ensure!(!library.is_empty(), "faketime names no library");
    Ok(library)
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
