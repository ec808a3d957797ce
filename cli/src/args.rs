//! The command line. Every option is also an environment variable `ONESPACE_<OPTION>`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use onespace_crds::Duration;

use crate::place::Place;

/// The name under which kubectl finds this program.
const PLUGIN: &str = "kubectl-onespace";

/// Policies of onespace: check them, turn them into the files that agents read, see how they stand, and act on them.
///
/// As `kubectl onespace` (a link of that name, `kubectl-onespace`, in the PATH) it looks at the cluster unless it is told of an
/// agent.
///
/// Exit codes: 0 done, 1 error, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "onespace", version)]
pub struct Args {
    /// It was called by kubectl.
    #[arg(skip)]
    pub plugin: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// From a command line, whose first word is the program. Ends the program where there is nothing to run.
    #[must_use]
    pub fn of(line: impl IntoIterator<Item = OsString>) -> Self {
        let line: Vec<OsString> = line.into_iter().collect();
        let plugin = line.first().is_some_and(|program| is_plugin(Path::new(program)));
        let command = match plugin {
            true => Self::command().bin_name("kubectl onespace"),
            false => Self::command(),
        };
        let mut matches = command.get_matches_from(line);
        let args = Self::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit());
        Self { plugin, ..args }
    }
}

fn is_plugin(program: &Path) -> bool {
    program.file_stem().is_some_and(|name| name == PLUGIN)
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check policies: those of files as the API server and the operator would, without a cluster; or those of the cluster.
    Validate(Validate),
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
    /// Show what an agent does, or how the policies of the cluster stand; on a terminal the table is renewed while there is
    /// a backlog.
    Status(Status),
    /// Have held rows tried again, by one agent or, through the cluster, by all.
    Retry(Retry),
    /// Have a batch of deletes carried out that waits for a person.
    ReleaseDeletes(ReleaseDeletes),
}

/// Options of `validate`.
#[derive(Debug, ClapArgs)]
pub struct Validate {
    /// A file with YAML or JSON, or a folder with such files (*.yaml, *.yml, *.json); may repeat. Without one, the policies
    /// of the cluster are checked.
    #[arg(short = 'f', long = "file", value_name = "FILE_OR_DIR", env = "ONESPACE_FILE", num_args = 1..)]
    pub files: Vec<PathBuf>,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: crate::place::ClusterArgs,
    /// The policies of all namespaces.
    #[arg(
        short = 'A',
        long,
        env = "ONESPACE_ALL_NAMESPACES",
        conflicts_with = "namespace"
    )]
    pub all_namespaces: bool,
}

/// Options of `retry`.
#[derive(Debug, ClapArgs)]
pub struct Retry {
    /// Which agent, or which cluster.
    #[command(flatten)]
    pub place: Place,
    /// The policy. At an agent the mapping's id will do, too: it is in `onespace status --json`.
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub policy: String,
    /// Only this object, `container/object`, at one agent; the default is every held row.
    #[arg(value_name = "OBJECT")]
    pub object: Option<String>,
    /// How long to wait, in the cluster, until every agent has done so; 0s does not wait.
    #[arg(long, value_name = "DURATION", env = "ONESPACE_TIMEOUT", default_value = "2m", value_parser = duration)]
    pub timeout: Duration,
}

/// Options of `release-deletes`.
#[derive(Debug, ClapArgs)]
pub struct ReleaseDeletes {
    /// Which agent, or which cluster.
    #[command(flatten)]
    pub place: Place,
    /// The policy. At an agent the mapping's id will do, too: it is in `onespace status --json`.
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub policy: String,
    /// The batch's id, from the policy's status: only this batch is released.
    #[arg(value_name = "BATCH")]
    pub batch: Option<String>,
    /// Releases whichever batch waits now.
    #[arg(long, env = "ONESPACE_YES", conflicts_with = "batch")]
    pub yes: bool,
    /// How long to wait, in the cluster, until the batch waits no more; 0s does not wait.
    #[arg(long, value_name = "DURATION", env = "ONESPACE_TIMEOUT", default_value = "2m", value_parser = duration)]
    pub timeout: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::try_from(text.to_owned()).map_err(|error| error.to_string())
}

/// Options of `status`.
#[derive(Debug, ClapArgs)]
pub struct Status {
    /// Which agent, or which cluster.
    #[command(flatten)]
    pub place: Place,
    /// The policies of all namespaces.
    #[arg(
        short = 'A',
        long,
        env = "ONESPACE_ALL_NAMESPACES",
        conflicts_with_all = ["namespace", "agent"]
    )]
    pub all_namespaces: bool,
    /// The agent's answer, or the policies as the cluster has them, unchanged.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn kubectl_finds_the_program_by_its_name() {
        assert!(is_plugin(Path::new("/usr/local/bin/kubectl-onespace")));
        assert!(!is_plugin(Path::new("/usr/local/bin/onespace")));
    }
}
