//! Kubernetes' Events: what `kubectl describe` shows below a policy.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as KubeEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ApiResource, ObjectMeta, PostParams};
use kube::{Api, Client};
use onespace_core::status::Event;
use onespace_crds::SyncPolicy;

use crate::api::{ApiError, within};
use crate::table::Key;

/// Who tells.
const CONTROLLER: &str = "onespace.dev/operator";

/// Posts one event about a policy. `instance` is this replica's name.
///
/// # Errors
/// No answer, or a refusal.
pub async fn post(
    client: &Client,
    (namespace, name): &Key,
    uid: &str,
    event: Event,
    instance: &str,
) -> Result<(), ApiError> {
    let api: Api<KubeEvent> = Api::namespaced(client.clone(), namespace);
    let event = kube_event(namespace, name, uid, event, instance, jiff::Timestamp::now());
    within(api.create(&PostParams::default(), &event)).await?;
    Ok(())
}

fn kube_event(
    namespace: &str,
    name: &str,
    uid: &str,
    event: Event,
    instance: &str,
    now: jiff::Timestamp,
) -> KubeEvent {
    let resource = ApiResource::erase::<SyncPolicy>(&());
    // A name has 253 bytes, and names of policies are ASCII.
    let short: String = name.chars().take(200).collect();
    KubeEvent {
        metadata: ObjectMeta {
            name: Some(format!("{short}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some("Reconcile".to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(event.message),
        reason: Some(event.reason),
        regarding: Some(ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.chars().take(128).collect()),
        type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
        ..KubeEvent::default()
    }
}
