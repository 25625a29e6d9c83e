//! What the machine is after its boot.

use serde_json::Value;

use crate::journey::{COMPANY_IMAGE, CURL_IMAGE, Journey, PAUSE_IMAGE};
use crate::support::boot::{COMPANY_REGISTRY, NODE, NODE_ADDRESS, OUTSIDE_REGISTRY, USER};
use crate::support::eventually;
use crate::support::kubectl::{Kubectl as _, text};

/// Files that others have lines in, too: reach brings a block, which its script puts there.
const SHARED: [&str; 1] = ["/etc/environment"];

pub fn has_the_files_that_reach_renders(journey: &Journey) {
    let site = &journey.site;
    for (path, content) in &journey.files {
        let file = site.file(path);
        let mode = match path.as_str() {
            "/etc/reach/apply-proxy.sh" => 0o700,
            "/etc/sudoers.d/reach-proxy" => 0o440,
            path if path.starts_with("/etc/reach/") && !path.starts_with("/etc/reach/ca/") => 0o600,
            _ => 0o644,
        };
        assert!(file.content == *content, "{path} is not what reach renders");
        assert_eq!((file.mode, file.owner), (mode, (0, 0)), "{path}");
    }
    for path in SHARED {
        let content = site.file(path).content;
        let lines = content.lines().filter(|line| line.to_lowercase().contains("_proxy=")).count();
        assert_eq!(lines, journey.variables().len(), "{path} has each variable once");
    }
    // The CA is among those that everything here trusts.
    let bundle = site.file("/etc/ssl/certs/ca-certificates.crt").content;
    assert!(bundle.contains(site.ca().trim()), "the company's CA is not in the bundle");
}

pub fn ran_ours_first_then_the_users_then_kubeadm(journey: &Journey) {
    let site = &journey.site;
    // The user's own command saw a runtime that had the variables, and no cluster yet.
    let mut seen: Vec<_> = site.file("/var/log/user-command").content.lines().map(str::to_owned).collect();
    let last = seen.pop().expect("what ls said");
    assert!(last.contains("No such file"), "kubeadm came first: {last}");
    seen.sort_unstable();
    let names: Vec<_> = journey.variables().iter().map(|line| name(line).to_owned()).collect();
    assert_eq!(seen, names);
    assert!(site.path("/etc/kubernetes/admin.conf").exists());
    // What Cluster API waits for.
    let done = site.shell("cat /run/cluster-api/bootstrap-success.complete");
    assert_eq!(done.trim(), "success");
}

pub fn runs_a_containerd_with_exactly_these_variables(journey: &Journey) {
    let site = &journey.site;
    let process = site.shell("systemctl show --property=MainPID --value containerd.service");
    let variables = site.proxy_variables(&process);
    assert!(variables == journey.variables(), "containerd has other variables: {:?}", names(&variables));
    // The kubelet was not asked for.
    let process = site.shell("systemctl show --property=MainPID --value kubelet.service");
    assert_eq!(names(&site.proxy_variables(&process)), Vec::<&str>::new());
}

pub fn pulls_through_the_proxy_what_only_that_reaches(journey: &Journey) {
    let site = &journey.site;
    // That was the user's command, before there was a cluster.
    let images = site.shell("ctr --namespace k8s.io images ls --quiet");
    assert!(images.lines().any(|name| name == PAUSE_IMAGE), "{}", site.file("/var/log/user-pull").content);
    let before = site.more_requests(OUTSIDE_REGISTRY, 0).len();
    site.shell(&format!("ctr --namespace k8s.io images pull {CURL_IMAGE}"));
    let requests = site.more_requests(OUTSIDE_REGISTRY, before);
    // The proxy let it through for the password, which has every printable character.
    for request in &requests {
        let words: Vec<_> = request.split_whitespace().collect();
        let ends = words[3].ends_with("/200") && words[7] == USER;
        assert!(ends || words[3] == "TCP_DENIED/407", "{request}");
    }
    assert!(requests.iter().any(|request| request.contains("TCP_TUNNEL/200")), "{requests:?}");
    // There is no other way: the name is unknown, and no route leads to the address.
    let direct = site.run(&format!("curl --silent --show-error --max-time 5 https://{OUTSIDE_REGISTRY}/v2/"));
    assert_eq!(direct.status.code(), Some(6), "could not resolve: {}", text(&direct));
    let direct = site.run(&format!(
        "curl --silent --max-time 5 --resolve {OUTSIDE_REGISTRY}:443:198.51.100.3 https://{OUTSIDE_REGISTRY}/v2/"
    ));
    assert_eq!(direct.status.code(), Some(7), "could not connect: {}", text(&direct));
}

pub fn pulls_from_the_company_past_the_proxy(journey: &Journey) {
    let site = &journey.site;
    site.shell(&format!("ctr --namespace k8s.io images pull {COMPANY_IMAGE}"));
    assert_eq!(site.proxy().requests(COMPANY_REGISTRY), Vec::<String>::new());
    let log = site.registry_log(COMPANY_REGISTRY);
    let pulled = log.lines().any(|line| {
        line.starts_with(&NODE_ADDRESS.to_string()) && line.contains("GET /v2/tools/pause/blobs/")
    });
    assert!(pulled, "the registry knows nothing of the pull: {log}");
}

pub fn is_ready_in_a_cluster_of_its_own(journey: &Journey) {
    let site = &journey.site;
    let node = site.get(&["node", NODE]);
    let conditions = node["status"]["conditions"].as_array().expect("conditions");
    let ready = |condition: &&Value| condition["type"] == "Ready" && condition["status"] == "True";
    assert!(conditions.iter().any(|condition| ready(&condition)), "{conditions:?}");
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.37.1");
    site.await_system();
}

pub fn is_the_same_after_a_power_cut(journey: &Journey) {
    let site = &journey.site;
    let paths = ["/var/log/user-command", "/etc/ssl/certs/ca-certificates.crt", "/etc/kubernetes/admin.conf"];
    let paths: Vec<&str> = journey.files.keys().map(String::as_str).chain(SHARED).chain(paths).collect();
    let files = || paths.iter().map(|path| site.file(path)).collect::<Vec<_>>();
    let before = files();
    site.power_cycle();
    for ((path, before), after) in paths.iter().zip(&before).zip(files()) {
        assert!(*before == after, "{path} was written again");
    }
    // It begins anew every ten seconds until the runtime is there.
    eventually("the kubelet runs", || {
        let output = site.run("systemctl is-active kubelet.service");
        if output.status.success() { Ok(()) } else { Err(text(&output)) }
    });
    site.await_api();
    site.await_system();
    runs_a_containerd_with_exactly_these_variables(journey);
    // The script may run again whenever somebody wants it to.
    site.shell("sh /etc/reach/apply-proxy.sh");
    for ((path, before), after) in paths.iter().zip(&before).zip(files()) {
        assert!(before.content == after.content, "{path} has changed");
    }
    runs_a_containerd_with_exactly_these_variables(journey);
}

fn names(variables: &[String]) -> Vec<&str> {
    variables.iter().map(|line| name(line)).collect()
}

fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}
