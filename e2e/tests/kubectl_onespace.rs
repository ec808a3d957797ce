//! `kubectl onespace` at a real API server, with an operator and an agent.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use onespace_e2e::kube::Kubernetes;
use onespace_e2e::lab::Lab;
use onespace_e2e::operator::{Cluster, NAMESPACE};
use onespace_e2e::plugin::{Ended, Plugin};
use onespace_e2e::ports::free_port;
use onespace_e2e::s3::embedded::{Fault, Rule};
use onespace_e2e::swift::NO_HEADERS;
use serde::Deserialize as _;
use serde_json::{Value, json};

fn objects(yaml: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|object| !object.is_null())
        .collect()
}

/// An agent whose files are those of the operator's, as a kubelet sees to it.
struct World {
    lab: Lab,
    cluster: Cluster,
    plugin: Arc<Plugin>,
}

impl World {
    async fn start() -> Self {
        let cluster = Cluster::start().await.unwrap();
        Self {
            lab: Lab::start().await.unwrap(),
            plugin: Arc::new(Plugin::new(cluster.kubernetes.kubeconfig()).unwrap()),
            cluster,
        }
    }

    async fn apply(&self, yaml: &str) {
        for object in objects(yaml) {
            self.cluster.apply(&object).await.unwrap();
        }
    }

    async fn mount(&self) {
        let (mappings, credentials) = (self.lab.policies.mappings(), self.lab.policies.credentials());
        self.cluster.mount(&mappings, &credentials).await.unwrap();
    }

    /// Runs the plugin while the agent's files follow the operator's.
    async fn run(&self, words: &[&str]) -> Ended {
        let plugin = self.plugin.clone();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let ended = tokio::task::spawn_blocking(move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            plugin.run(&words).unwrap()
        });
        while !ended.is_finished() {
            self.mount().await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        ended.await.unwrap()
    }

    async fn until_ready(&self, name: &str) {
        self.cluster
            .until("the operator's files at the agent", async || {
                self.mount().await;
                let policy = self.cluster.policy(NAMESPACE, name).await?;
                let conditions = policy.pointer("/status/conditions").and_then(Value::as_array);
                let mut conditions = conditions.into_iter().flatten();
                let is_ready =
                    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
                Ok(is_ready.then_some(()))
            })
            .await
            .unwrap();
    }

    /// Waits until a number stands in the status of `photos`.
    async fn until_number(&self, pointer: &str, number: u64) {
        self.cluster
            .until(&format!("{pointer} = {number}"), async || {
                self.mount().await;
                let policy = self.cluster.policy(NAMESPACE, "photos").await?;
                Ok((policy.pointer(pointer) == Some(&json!(number))).then_some(()))
            })
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn kubectl_onespace_shows_how_policies_stand_and_has_held_rows_and_deletes_done() {
    let world = World::start().await;
    let World { lab, cluster, .. } = &world;
    lab.container("photos").await.unwrap();
    lab.s3.faults().inject(Rule {
        operation: Some("PutObject"),
        key_contains: "poison".into(),
        skip: 0,
        times: 1,
        fault: Fault::answer(400, "InvalidArgument"),
    });
    lab.user
        .put("photos", "poison", NO_HEADERS, "poison")
        .await
        .unwrap();
    lab.put_many("photos", "good-", 5).await.unwrap();
    let agent = lab.unready_agent().await.unwrap();
    let _operator = cluster
        .operator("one", &["--agent", &agent.status_url()])
        .unwrap();
    world
        .apply(&lab.policy("photos", "photos", "deleteBudget: {max: 1, window: 1h}"))
        .await;
    world.apply(&lab.policy("typo", "fotos", "")).await;
    world.until_ready("photos").await;
    cluster
        .until_condition((NAMESPACE, "typo"), "Ready", "False", "SourceNotFound")
        .await
        .unwrap();
    cluster
        .until("the others arrive", async || {
            Ok((lab.remote().len() == 5).then_some(()))
        })
        .await
        .unwrap();

    // What stands where.
    let elsewhere = world.run(&["status"]).await;
    assert!(
        elsewhere.code == 0 && elsewhere.out.contains("namespace default"),
        "{elsewhere:?}"
    );
    for words in [&["status", "-A"][..], &["status", "--namespace", NAMESPACE]] {
        let shown = world.run(words).await;
        let line = |name: &str| {
            shown
                .out
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap()
                .to_owned()
        };
        assert_eq!(shown.code, 0, "{shown:?}");
        let photos = line("swift/photos ");
        assert!(photos.contains("Sync") && photos.contains("True"), "{photos}");
        assert!(
            line("swift/typo ").contains("False (SourceNotFound)"),
            "{shown:?}"
        );
        assert!(line("swift/typo:").contains("check the names"), "{shown:?}");
    }
    let json = world.run(&["status", "-A", "--json"]).await;
    let list: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(list["items"][0]["kind"], "SyncPolicy");

    // A held row, tried again at the word of a person.
    let agents_word = async || agent.policy("photos").await.unwrap();
    assert_eq!(agents_word().await.held.rows, 1);
    let retried = world.run(&["retry", "photos", "-n", NAMESPACE]).await;
    assert!(
        retried.code == 0 && retried.out.contains("every agent has done so"),
        "{retried:?}"
    );
    let policy = cluster.policy(NAMESPACE, "photos").await.unwrap();
    let token = policy["metadata"]["annotations"]["onespace.dev/retry"].clone();
    assert_eq!(policy["status"]["lastHandledRetry"], token);
    cluster
        .until("it arrives", async || Ok(lab.at("photos/poison").map(drop)))
        .await
        .unwrap();
    let again = world.run(&["retry", "swift/photos"]).await;
    assert_eq!(again.code, 0, "{again:?}");
    let policy = cluster.policy(NAMESPACE, "photos").await.unwrap();
    assert_ne!(
        policy["status"]["lastHandledRetry"], token,
        "each time is another one"
    );

    // Deletes that wait.
    let none = world.run(&["release-deletes", "swift/photos", "--yes"]).await;
    assert!(none.code == 1 && none.err.contains("no deletes"), "{none:?}");
    for number in 0..5 {
        let name = format!("good-{number:03}");
        lab.user.delete("photos", &name).await.unwrap();
    }
    world.until_number("/status/heldDeletes/count", 4).await;
    let policy = cluster.policy(NAMESPACE, "photos").await.unwrap();
    let batch = policy["status"]["heldDeletes"]["id"].as_str().unwrap();
    let shown = world.run(&["status", "-n", NAMESPACE]).await;
    assert!(
        shown
            .out
            .contains(&format!("release-deletes swift/photos {batch}")),
        "{shown:?}"
    );
    let unnamed = world.run(&["release-deletes", "swift/photos"]).await;
    assert!(
        unnamed.code == 2 && unnamed.err.contains("4 deletes") && unnamed.err.contains(batch),
        "{unnamed:?}"
    );
    let another = world.run(&["release-deletes", "swift/photos", "another"]).await;
    assert!(another.code == 1 && another.err.contains(batch), "{another:?}");
    let policy = cluster.policy(NAMESPACE, "photos").await.unwrap();
    assert!(
        policy
            .pointer("/metadata/annotations/onespace.dev~1release-deletes")
            .is_none(),
        "{policy}"
    );
    assert_eq!(lab.remote().len(), 5, "one was in the budget");
    let released = world.run(&["release-deletes", "swift/photos", batch]).await;
    assert!(
        released.code == 0 && released.out.contains("no deletes wait any more"),
        "{released:?}"
    );
    cluster
        .until(
            "the deletes",
            async || Ok((lab.remote().len() == 1).then_some(())),
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn kubectl_onespace_validates_what_is_in_the_cluster_and_retries_nothing_that_no_agent_has() {
    let world = World::start().await;
    let World { lab, cluster, .. } = &world;
    let _operator = cluster.operator("one", &[]).unwrap();
    world.apply(&lab.policy("first", "photos", "")).await;
    cluster
        .until_condition((NAMESPACE, "first"), "Accepted", "True", "Accepted")
        .await
        .unwrap();
    let good = world.run(&["validate", "-n", NAMESPACE]).await;
    assert!(
        good.code == 0 && good.out.contains("swift/first: valid"),
        "{good:?}"
    );

    // Its name comes first, but the other was there before.
    world
        .apply(&lab.policy_to("conflict", "films", "prefix: first/below", ""))
        .await;
    cluster
        .until_condition((NAMESPACE, "conflict"), "Accepted", "False", "Conflict")
        .await
        .unwrap();
    let bad = world.run(&["validate", "-A"]).await;
    assert!(
        bad.code == 1 && bad.out.contains("swift/first: valid") && !bad.out.contains("swift/conflict"),
        "{bad:?}"
    );
    assert!(
        bad.err.contains("swift/conflict: spec.target")
            && bad.err.contains("the operator does not accept it"),
        "{bad:?}"
    );
    let refused = world.run(&["retry", "swift/conflict"]).await;
    assert!(
        refused.code == 1 && refused.err.contains("not accepted") && refused.err.contains("Conflict"),
        "{refused:?}"
    );

    // Nobody answers: the person is told so, and what stands in the way.
    let unheard = world.run(&["retry", "swift/first", "--timeout", "2s"]).await;
    assert!(
        unheard.code == 1 && unheard.err.contains("within 2s") && unheard.err.contains("NoAgent"),
        "{unheard:?}"
    );
    let told = world.run(&["retry", "swift/first", "--timeout", "0s"]).await;
    assert_eq!(told.code, 0, "{told:?}");
}

#[tokio::test]
async fn kubectl_onespace_says_what_is_missing() {
    let kubernetes = Kubernetes::start().await.unwrap();
    let plugin = Plugin::new(kubernetes.kubeconfig()).unwrap();
    let fails = |words: &[&str], said: &str| {
        let ended = plugin.run(words).unwrap();
        assert!(
            ended.code == 1 && ended.err.contains(said),
            "{words:?}: {ended:?}"
        );
    };
    fails(&["status", "-A"], "knows no SyncPolicies");
    fails(&["retry", "swift/photos"], "knows no SyncPolicies");
    fails(&["status", "--context", "another"], "another");
    fails(&["status", "--kubeconfig", "/nowhere"], "/nowhere");

    let crd = serde_json::to_value(onespace_crds::sync_policy_crd().unwrap()).unwrap();
    kubernetes.install_crd(&crd).await.unwrap();
    fails(&["retry", "swift/photos"], "no policy swift/photos");
    let wrong = plugin.run(&["retry", "swift/photos", "-n", "other"]).unwrap();
    assert!(
        wrong.code == 2 && wrong.err.contains("--namespace other"),
        "{wrong:?}"
    );
    let one = plugin.run(&["retry", "swift/photos", "photos/a.jpg"]).unwrap();
    assert!(one.code == 2 && one.err.contains("--agent"), "{one:?}");

    let account = json!({"metadata": {"name": "nobody"}});
    let path = "/api/v1/namespaces/default/serviceaccounts";
    kubernetes.create(path, &account).await.unwrap();
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = kubernetes
        .create(&format!("{path}/nobody/token"), &request)
        .await
        .unwrap();
    let token = token["status"]["token"].as_str().unwrap();
    let nobody = plugin.with_token(token).unwrap().run(&["status", "-A"]).unwrap();
    assert!(
        nobody.code == 1
            && nobody
                .err
                .contains("you may not list SyncPolicies of all namespaces"),
        "{nobody:?}"
    );
    let stranger = plugin.with_token("nonsense").unwrap().run(&["status"]).unwrap();
    assert!(
        stranger.code == 1 && stranger.err.contains("does not know you"),
        "{stranger:?}"
    );

    // Nothing listens there.
    let text = std::fs::read_to_string(kubernetes.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["clusters"][0]["cluster"]["server"] = json!(format!("https://127.0.0.1:{}", free_port().unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    std::fs::write(&gone, config.to_string()).unwrap();
    let gone = plugin.run_with(&gone, &["status"]).unwrap();
    assert!(gone.code == 1 && gone.err.contains("does not answer"), "{gone:?}");
}
