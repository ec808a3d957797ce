//! A cluster that is broken off leaves nothing behind. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(120);

/// Everything of this cluster that can be seen outside: its folder, its cgroups, its processes.
fn traces(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let cgroups = Path::new("/sys/fs/cgroup");
    let controllers = std::fs::read_dir(cgroups).unwrap().flatten();
    let places = controllers
        .map(|controller| controller.path())
        .chain([cgroups.to_owned(), std::env::temp_dir()]);
    found.extend(
        places
            .map(|place| place.join(name))
            .filter(|place| place.exists()),
    );
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(&format!("/{name}")) {
            found.push(process.path());
        }
    }
    found
}

#[allow(clippy::disallowed_methods, reason = "there is no runtime here to block")]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends with the test, however it ends.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_cluster_that_is_interrupted_or_terminated_ends_at_once_and_leaves_nothing_behind() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let program = env!("CARGO_BIN_EXE_onespace-demo-kubernetes");
        let demo = Command::new(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let mut demo = Demo(demo.unwrap());
        let name = format!("onespace-cluster-{}", demo.0.id());
        // Its folder is made first, a cgroup for each node just before kubelets start.
        until("cgroups and processes", || {
            let traces = traces(&name);
            let is_cgroup = |path: &&PathBuf| path.starts_with("/sys/fs/cgroup");
            let nodes = traces
                .iter()
                .filter(is_cgroup)
                .any(|path| path.join("node-2").exists());
            assert!(demo.0.try_wait().unwrap().is_none(), "it ended by itself");
            (nodes && traces.iter().any(|path| path.starts_with("/proc"))).then_some(())
        });
        let told = Command::new("kill")
            .args([&format!("-{signal}"), &demo.0.id().to_string()])
            .status()
            .unwrap();
        assert!(told.success());
        let status = until("its end", || demo.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(code), "{signal}: {status}");
        assert_eq!(traces(&name), Vec::<PathBuf>::new(), "{signal}");
    }
}
