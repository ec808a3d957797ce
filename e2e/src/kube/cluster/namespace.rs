//! Namespaces of its own for a whole test program: network, mounts, processes. Nothing in there can reach or disturb
//! what is outside, and all of it ends and is unmounted with one process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

/// Says to the program that it runs inside, and where its folder is.
const INSIDE: &str = "ONESPACE_CLUSTER_FOLDER";

/// How folders and cgroups are called; the number of the process outside follows.
const NAME: &str = "onespace-cluster-";

/// Makes the inside ready and runs the program there, as the child of a process that reaps orphans.
///
/// Mounts made inside stay there, and may be shared with pods. Whatever would be written to `/run`, `/var/lib`, `/var/log`,
/// `/dev/shm` or `/tmp` goes to memory. A kubelet sets some of the machine's tunables: it gets files in their place, which
/// are as it wants them. Of several kubelets one would read what another has half written, and end.
const SETUP: &str = r#"set -e
mount --make-rshared /
mount -t tmpfs -o mode=755,size=16g onespace "$FOLDER"
mount -t tmpfs -o mode=755 onespace /run
mount -t tmpfs -o mode=1777 onespace /dev/shm
mkdir -m 1777 "$FOLDER/tmp"
for folder in lib log; do
    mkdir -p "$FOLDER/over/$folder/new" "$FOLDER/over/$folder/work"
    mount -t overlay -o "lowerdir=/var/$folder,upperdir=$FOLDER/over/$folder/new,workdir=$FOLDER/over/$folder/work" onespace "/var/$folder"
done
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    tunable=${setting%=*}
    [ -e "/proc/sys/$tunable" ] || continue
    mkdir -p "$FOLDER/tunables/$(dirname "$tunable")"
    echo "${setting#*=}" >"$FOLDER/tunables/$tunable"
    mount --bind "$FOLDER/tunables/$tunable" "/proc/sys/$tunable"
done
ip link set lo up
TMPDIR=$FOLDER/tmp
export TMPDIR
set +e
"$@"
exit $?"#;

/// Runs `main` in namespaces of its own: outside, this starts the same program again, inside.
#[must_use]
pub fn inside(main: impl FnOnce() -> ExitCode) -> ExitCode {
    if std::env::var_os(INSIDE).is_some() {
        return main();
    }
    match outside() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: the cluster cannot be started: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A shell command that enters from outside, for a person who wants to look around with kubectl.
#[must_use]
pub fn enter_with(kubeconfig: &Path) -> String {
    let pid = folder().ok().and_then(|folder| {
        let name = folder.file_name()?.to_string_lossy().into_owned();
        name.strip_prefix(NAME).map(str::to_owned)
    });
    // Outside: the program, its unshare, and that one's child, the first process inside.
    format!(
        "nsenter --target \"$(pgrep --parent \"$(pgrep --parent {})\")\" --mount --net --pid env KUBECONFIG={} \\\n    PATH=\"{}:$PATH\" bash",
        pid.unwrap_or_default(),
        kubeconfig.display(),
        crate::tools::workspace().join(".tools/bin").display(),
    )
}

/// The folder of everything inside: in memory, gone with the program.
///
/// # Errors
/// This is not inside.
pub(super) fn folder() -> Result<PathBuf> {
    let folder = std::env::var_os(INSIDE).context("a cluster needs namespaces of its own: see `inside`")?;
    Ok(PathBuf::from(folder))
}

/// The name of the cgroup below which all of the cluster's are.
pub(super) fn cgroup() -> Result<String> {
    let folder = folder()?;
    let name = folder.file_name().context("a folder without a name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// Where cgroups are mounted: one folder for each controller, or one for all.
pub(super) fn controllers() -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).context("no cgroups at /sys/fs/cgroup")? {
        let entry = entry?;
        // Links are other names of the same.
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn outside() -> Result<ExitCode> {
    check_root()?;
    for tool in ["unshare", "setpriv", "nsenter", "ip", "mount"] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output()?;
        ensure!(
            found.status.success(),
            "{tool} is missing: it is in Debian's packages util-linux and iproute2"
        );
    }
    sweep();
    let folder = std::env::temp_dir().join(format!("{NAME}{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let child = Command::new("setpriv")
        // Whatever happens to this process, nothing inside outlives it.
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--fork",
        ])
        .args(["--mount-proc", "--propagation", "private", "--kill-child"])
        .args(["sh", "-c", SETUP, "sh"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, &folder)
        .env("FOLDER", &folder)
        .spawn();
    let code = child.context("unshare").and_then(until_over);
    remove(&folder);
    Ok(ExitCode::from(code?))
}

/// Waits until everything inside has ended: by itself, or because this process is told to end. Returns what this
/// process is to end with.
fn until_over(mut unshare: Child) -> Result<u8> {
    let pid = unshare.id();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let [mut interrupt, mut terminate, mut hangup] = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        let mut ended = tokio::task::spawn_blocking(move || unshare.wait());
        let signal = tokio::select! {
            status = &mut ended => {
                let code = status??.code().unwrap_or(1);
                return Ok(u8::try_from(code).unwrap_or(1));
            }
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hangup.recv() => SignalKind::hangup(),
        };
        kill_inside(pid)?;
        ended.await??;
        // As a shell says it of a program that a signal ended.
        Ok(u8::try_from(128 + signal.as_raw_value()).unwrap_or(1))
    })
}

/// Kills the first process inside, and so all others there: it is gone once they all are. Before there is one, kills the
/// process that would have made it.
fn kill_inside(unshare: u32) -> Result<()> {
    let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
    let first = children.unwrap_or_default();
    let first = first.split_whitespace().next().map(str::to_owned);
    // It may end by itself meanwhile.
    Command::new("kill")
        .args(["-KILL", &first.unwrap_or_else(|| unshare.to_string())])
        .output()?;
    Ok(())
}

fn check_root() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = ids.and_then(|ids| ids.split_whitespace().nth(1));
    ensure!(
        effective == Some("0"),
        "it needs root, for namespaces, mounts and cgroups. Run these tests as root, in a virtual machine or a \
         privileged container if you like, or leave them out: cargo test --workspace --exclude onespace-e2e"
    );
    Ok(())
}

/// Removes what runs left behind that were killed.
fn sweep() {
    let parents = controllers().unwrap_or_default();
    for parent in parents.into_iter().chain([std::env::temp_dir()]) {
        let entries = std::fs::read_dir(&parent).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(pid) = name.strip_prefix(NAME) else {
                continue;
            };
            if !Path::new("/proc").join(pid).exists() {
                remove(&std::env::temp_dir().join(&name));
            }
        }
    }
}

/// Removes the folder and the cgroups of this name. They are empty: every process in there is dead, its mounts are gone.
fn remove(folder: &Path) {
    let _ = std::fs::remove_dir(folder);
    let Some(name) = folder.file_name() else {
        return;
    };
    for controller in controllers().unwrap_or_default() {
        remove_cgroup(&controller.join(name));
    }
}

#[allow(clippy::disallowed_methods, reason = "there is no runtime here to block")]
fn remove_cgroup(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // A killed process leaves its cgroup a moment after it is gone from the list of processes.
    for _ in 0..100 {
        if std::fs::remove_dir(cgroup).is_ok() || !cgroup.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
