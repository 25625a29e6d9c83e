//! What machines are given at their first start.

use std::fs;
use std::time::Instant;

use crate::support::cluster_api::{ClusterApi, Role, Workload};
use crate::support::helm::root;

pub fn are_given_the_files_and_the_command(cluster_api: &ClusterApi) {
    let stream = fs::read_to_string(root().join("examples/cluster-api/vsphere.yaml")).expect("an example");
    let start = Instant::now();
    let cluster = cluster_api.create("clusters", "shop", Workload::Running, &stream);
    println!("{}", cluster.user_data(Role::First).text);
    println!("first {:?}", start.elapsed());
    cluster.boot();
    println!("{}", cluster.user_data(Role::Worker).text);
    println!("worker {:?}", start.elapsed());
}
