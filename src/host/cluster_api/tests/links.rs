//! Which objects belong together, and which must not.

use super::*;

/// The names of what gets a group's list.
fn configured(manifests: &Manifests, group: &Group) -> Vec<String> {
    group.configurations.iter().map(|index| manifests.objects()[*index].to_string()).collect()
}

#[test]
fn two_clusters_that_share_a_configuration_are_an_error_that_names_both() {
    let mut other = cluster("d");
    other["spec"]["controlPlaneRef"]["name"] = json!("c");
    let manifests = objects(&[cluster("c"), other, control_plane("c", &json!({}))]);
    assert_eq!(
        wrong(&manifests),
        [
            "c.yaml, document 2, Cluster a/d, spec.controlPlaneRef: KubeadmControlPlane a/c is also what Cluster a/c \
             (c.yaml, document 1) uses, and one object can hold the list of one cluster only: give Cluster a/d its own \
             [shared-configuration]"
        ]
    );
    // The same cluster twice is one cluster.
    let twice = objects(&[cluster("c"), cluster("c"), control_plane("c", &json!({}))]);
    let groups = derived(&twice);
    assert_eq!(groups.len(), 1);
    assert_eq!(configured(&twice, &groups[0]), ["KubeadmControlPlane a/c"]);
}
