//! The presets, workloads and pods of a cluster.

use anyhow::Context;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;

use super::super::input::ClusterOptions;
use crate::presets::cluster::source::API_SERVICE;

/// Kinds that are looked at: group, version, kind, plural, and whether it has a namespace. Those that own others come first.
const KINDS: [(&str, &str, &str, &str, bool); 10] = [
    ("reach.dev", "v1alpha1", "ClusterPodPreset", "clusterpodpresets", false),
    ("reach.dev", "v1alpha1", "PodPreset", "podpresets", true),
    ("apps", "v1", "Deployment", "deployments", true),
    ("apps", "v1", "StatefulSet", "statefulsets", true),
    ("apps", "v1", "DaemonSet", "daemonsets", true),
    ("apps", "v1", "ReplicaSet", "replicasets", true),
    ("batch", "v1", "CronJob", "cronjobs", true),
    ("batch", "v1", "Job", "jobs", true),
    ("", "v1", "ReplicationController", "replicationcontrollers", true),
    ("", "v1", "Pod", "pods", true),
];

/// Objects asked for at once.
const PAGE: u32 = 500;

/// Reads all of them.
pub fn read(options: &ClusterOptions, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = kube::Client::try_from(
            options.config().await.context("without -f and --env, a cluster is looked at")?,
        )?;
        let mut objects = Vec::new();
        let mut looked_at = Vec::new();
        for (group, version, kind, plural, is_namespaced) in KINDS {
            let resource =
                ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
            let api: Api<DynamicObject> = match namespace {
                Some(namespace) if is_namespaced => {
                    Api::namespaced_with(client.clone(), namespace, &resource)
                }
                _ => Api::all_with(client.clone(), &resource),
            };
            match list(&api, &resource, &looked_at).await {
                Ok(found) => {
                    objects.extend(found);
                    looked_at.push((group, kind));
                }
                // Somebody with rights in one namespace still learns what is wrong there.
                Err(kube::Error::Api(status)) if status.code == 403 || status.code == 404 => {
                    super::super::complain(&format!(
                        "warning: {plural} are not looked at: {}",
                        crate::api_server::explain(&kube::Error::Api(status))
                    ));
                }
                Err(error) => {
                    return Err(
                        anyhow::Error::new(error).context(format!("cannot read {plural} from the cluster"))
                    );
                }
            }
        }
        // Its address is the API server's, so that E6 and W7 know it.
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Service"), "services");
        let (namespace, name) = API_SERVICE;
        let services: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
        if let Ok(Some(service)) = services.get_opt(name).await {
            objects.push(value(service, &resource)?);
        }
        Ok(objects)
    })
}

async fn list(
    api: &Api<DynamicObject>,
    resource: &ApiResource,
    looked_at: &[(&str, &str)],
) -> Result<Vec<Value>, kube::Error> {
    let mut objects = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await?;
        for object in list.items.into_iter().filter(|object| !repeats(object, looked_at)) {
            objects.push(value(object, resource).map_err(kube::Error::SerdeError)?);
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(objects),
        }
    }
}

/// Whether an object only repeats the one that made it, which is looked at.
fn repeats(object: &DynamicObject, looked_at: &[(&str, &str)]) -> bool {
    let owners = object.metadata.owner_references.iter().flatten();
    owners.filter(|owner| owner.controller == Some(true)).any(|owner| {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        looked_at.contains(&(group, &owner.kind))
    })
}

/// An object with its kind, which lists leave out.
fn value(object: DynamicObject, resource: &ApiResource) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    value["apiVersion"] = resource.api_version.as_str().into();
    value["kind"] = resource.kind.as_str().into();
    Ok(value)
}
