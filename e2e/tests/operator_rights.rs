//! An operator whose rights in one namespace are taken away.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use http::Method;
use onespace_e2e::operator::{Cluster, NAMESPACE, Operator};
use serde_json::{Value, json};

const USER: &str = "operator";
const TENANT: &str = "tenant";

fn binding(kind: &str, role: &str) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}]})
}

fn bindings(namespace: &str) -> String {
    format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings")
}

async fn bind(cluster: &Cluster, namespace: &str) {
    let binding = binding("RoleBinding", "cluster-admin");
    cluster
        .kubernetes
        .create(&bindings(namespace), &binding)
        .await
        .unwrap();
}

fn objects(namespace: &str, name: &str) -> [Value; 2] {
    [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": namespace},
            "stringData": {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush"}}),
        json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "SyncPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"mode": "Sync", "source": {"account": "AUTH_test", "container": name},
                "target": {"protocol": "S3", "endpoint": "http://s3.example.com", "bucket": "backup", "prefix": name,
                    "credentials": {"secretRef": {"name": "keys"}}}}}),
    ]
}

async fn ready(cluster: &Cluster, operator: &Operator) -> String {
    cluster
        .until("the operator is ready", async || {
            let answer = operator.health("/readyz").await.ok();
            Ok(answer.filter(|(status, _)| *status == 200).map(|(_, text)| text))
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_tenant_who_takes_the_operators_rights_away_stops_no_other_and_loses_nothing() {
    let cluster = Cluster::start().await.unwrap();
    cluster.namespace(TENANT, &json!({})).await.unwrap();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let everywhere = json!({"metadata": {"name": "everywhere"}, "rules": [
        {"apiGroups": ["onespace.dev"], "resources": ["accountgrants"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]}]});
    for (path, object) in [
        ("clusterroles", everywhere),
        ("clusterrolebindings", binding("ClusterRoleBinding", "everywhere")),
    ] {
        let path = format!("{rbac}/{path}");
        cluster.kubernetes.create(&path, &object).await.unwrap();
    }
    bind(&cluster, NAMESPACE).await;
    bind(&cluster, TENANT).await;
    let grant = json!({"apiVersion": "onespace.dev/v1alpha1", "kind": "AccountGrant", "metadata": {"name": "all"},
        "spec": {"namespaceSelector": {}, "accounts": ["AUTH_test"]}});
    cluster.apply(&grant).await.unwrap();
    let (films, photos) = (objects(TENANT, "films"), objects(NAMESPACE, "photos"));
    for object in films.iter().chain(&photos) {
        cluster.apply(object).await.unwrap();
    }

    let kubeconfig = cluster.kubernetes.kubeconfig_of(USER).unwrap();
    let watched = format!("{NAMESPACE},{TENANT}");
    let start = |name: &str| {
        let options = ["--watch-namespace", &watched];
        cluster.operator_with(&kubeconfig, name, &options).unwrap()
    };
    let first = start("first");
    cluster
        .until_mapped(&["swift/photos", "tenant/films"])
        .await
        .unwrap();
    assert_eq!(ready(&cluster, &first).await, "ready\n");
    first.stop().await.unwrap();

    let binding = format!("{}/operator", bindings(TENANT));
    let gone = cluster.kubernetes.send(Method::DELETE, &binding, None).await;
    gone.unwrap().unwrap();
    let before = cluster.files().await.unwrap();
    let second = start("second");
    let said = ready(&cluster, &second).await;
    assert!(
        said.contains("namespace tenant") && said.contains("RoleBinding"),
        "{said}"
    );
    let [_, books] = objects(NAMESPACE, "books");
    cluster.apply(&books).await.unwrap();
    cluster
        .until_mapped(&["swift/books", "swift/photos", "tenant/films"])
        .await
        .unwrap();
    assert!(before.credentials == cluster.files().await.unwrap().credentials);
    let unreadable = "onespace_operator_unreadable_namespaces";
    assert_eq!(second.metric(unreadable).await.unwrap(), 1.0);

    // What happens there meanwhile counts once it can be seen.
    let [_, films] = &films;
    cluster.delete(films).await.unwrap();
    bind(&cluster, TENANT).await;
    cluster
        .until_mapped(&["swift/books", "swift/photos"])
        .await
        .unwrap();
    cluster
        .until("all is as usual", async || {
            Ok((second.metric(unreadable).await? < 1.0).then_some(()))
        })
        .await
        .unwrap();
    assert_eq!(ready(&cluster, &second).await, "ready\n");
}
