//! The command line. Every option is also an environment variable `ONESPACE_<OPTION>`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// Policies of onespace: check them and turn them into the files that agents read.
///
/// Exit codes: 0 done, 1 error, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "onespace", version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check policies as the API server and the operator would, without a cluster.
    Validate(Inputs),
    /// Turn policies into the files that agents read, without a cluster.
    ///
    /// All or nothing: an invalid or conflicting policy is named, and nothing is written.
    Render(Render),
    /// Turn a `sync.json` of 1space into SyncPolicies and Secrets, as YAML on standard output.
    ///
    /// Settings of its daemons are named and dropped. What needs a person is named, and then the exit code is 1.
    Import(Import),
    /// Try what an agent will do at the remote, with a small object under the policy's own prefix.
    ///
    /// PUT, POST (new metadata), HEAD, LIST, DELETE; the first that fails is named, with what to do.
    Verify(Verify),
    /// Show what an agent does; on a terminal the table is renewed while there is a backlog.
    Status(Status),
    /// Have an agent try held rows again.
    Retry(Retry),
    /// Have an agent carry out a batch of deletes that waits for a person.
    ReleaseDeletes(ReleaseDeletes),
}

/// Which agent is asked.
#[derive(Debug, ClapArgs)]
pub struct Agent {
    /// The agent's `--status-listen`.
    #[arg(
        long = "agent",
        value_name = "URL",
        env = "ONESPACE_AGENT",
        default_value = "http://127.0.0.1:9181"
    )]
    pub url: String,
}

/// Options of `retry`.
#[derive(Debug, ClapArgs)]
pub struct Retry {
    /// Which agent.
    #[command(flatten)]
    pub agent: Agent,
    /// The mapping's id, from `onespace status --json`.
    #[arg(value_name = "ID")]
    pub id: String,
    /// Only this object, `container/object`; the default is every held row of the mapping.
    #[arg(value_name = "OBJECT")]
    pub object: Option<String>,
}

/// Options of `release-deletes`.
#[derive(Debug, ClapArgs)]
pub struct ReleaseDeletes {
    /// Which agent.
    #[command(flatten)]
    pub agent: Agent,
    /// The mapping's id, from `onespace status --json`.
    #[arg(value_name = "ID")]
    pub id: String,
    /// The batch's id, from the same place: only this batch is released.
    #[arg(value_name = "BATCH")]
    pub batch: String,
}

/// Options of `status`.
#[derive(Debug, ClapArgs)]
pub struct Status {
    /// Which agent.
    #[command(flatten)]
    pub agent: Agent,
    /// The agent's answer, unchanged.
    #[arg(long, env = "ONESPACE_JSON")]
    pub json: bool,
}

/// Options of `import`.
#[derive(Debug, ClapArgs)]
pub struct Import {
    /// The `sync.json`.
    #[arg(value_name = "FILE", env = "ONESPACE_IMPORT_FILE")]
    pub file: PathBuf,
    /// The namespace that the resources get; none by default.
    #[arg(long, value_name = "NAME", env = "ONESPACE_NAMESPACE")]
    pub namespace: Option<String>,
}

/// Where the policies are.
#[derive(Debug, ClapArgs)]
pub struct Inputs {
    /// A file with YAML or JSON, or a folder with such files (*.yaml, *.yml, *.json); may repeat.
    #[arg(short = 'f', long = "file", value_name = "FILE_OR_DIR", env = "ONESPACE_FILE", required = true, num_args = 1..)]
    pub files: Vec<PathBuf>,
}

/// Options of `render`.
#[derive(Debug, ClapArgs)]
pub struct Render {
    /// SyncPolicies, and the Secrets and ConfigMaps that they name.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Folder for the mapping files.
    #[arg(long, value_name = "DIR", env = "ONESPACE_MAPPINGS")]
    pub mappings: PathBuf,
    /// Folder for the credential files; they are readable by their owner only.
    #[arg(long, value_name = "DIR", env = "ONESPACE_CREDENTIALS")]
    pub credentials: PathBuf,
}

/// Options of `verify`.
#[derive(Debug, ClapArgs)]
pub struct Verify {
    /// SyncPolicies, and the Secrets and ConfigMaps that they name.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Only this policy; the default is every one of the input.
    #[arg(long, value_name = "[NAMESPACE/]NAME", env = "ONESPACE_POLICY")]
    pub policy: Option<String>,
    /// Write nothing: LIST, and HEAD of what was listed.
    #[arg(long, env = "ONESPACE_READ_ONLY")]
    pub read_only: bool,
}
