//! `make demo-hosts`: the way of a node, told with what bears witness to it.

use std::process::ExitCode;
use std::time::Instant;

use crate::journey::{COMPANY_IMAGE, CURL_IMAGE, Journey, NONE, PAUSE_IMAGE, REACH_IMAGE};
use crate::pods;
use crate::support::boot::{self, COMPANY_REGISTRY, OUTSIDE_REGISTRY};
use crate::support::kubectl::{Kubectl as _, text};

/// Goes the whole way once, and tells it.
pub fn tell() -> ExitCode {
    let missing = boot::missing();
    if !missing.is_empty() {
        eprintln!("a machine that boots needs what is missing here: {}", missing.join("; "));
        return ExitCode::FAILURE;
    }
    let start = Instant::now();
    let journey = Journey::start();
    let site = &journey.site;
    let mask = |text: &str| text.replace(&site.password_in_url(), "***");

    title("What reach added to the manifests of tests/boot/cluster.yaml");
    for (path, content) in &journey.files {
        println!("  {path} ({} lines)", content.lines().count());
    }
    println!("  and the first command: sh /etc/reach/apply-proxy.sh");

    title("What Cluster API made of them, and the machine booted");
    println!("  user data of {} bytes, format cloud-config", journey.user_data[NONE].len());
    print!("{}", indent(&site.shell("systemctl list-units --no-legend --plain 'cloud-*.service' containerd.service kubelet.service | sed 's/  */ /g'")));

    title("What cloud-init wrote");
    print!(
        "{}",
        indent(
            &site.shell(
                "ls -l /etc/reach /etc/systemd/system/containerd.service.d | sed 's/^total.*//; /^$/d'"
            )
        )
    );

    title("What the runtime has in its environment");
    let process = site.shell("systemctl show --property=MainPID --value containerd.service");
    for variable in site.proxy_variables(&process) {
        println!("  {}", mask(&variable));
    }

    title("What the user's own command pulled, before there was a cluster");
    println!("  {PAUSE_IMAGE}; the proxy's log says:");
    print!("{}", indent(&last(&site.more_requests(OUTSIDE_REGISTRY, 0), 2)));

    title("What the company has itself is pulled past the proxy");
    site.shell(&format!("ctr --namespace k8s.io images pull {COMPANY_IMAGE}"));
    let log = site.registry_log(COMPANY_REGISTRY);
    let pulls: Vec<_> = log.lines().filter(|line| line.contains("containerd/")).map(str::to_owned).collect();
    println!("  {COMPANY_IMAGE}; the registry's log says:");
    print!("{}", indent(&last(&pulls, 2)));
    println!("  and the proxy's has {} lines of it", site.proxy().requests(COMPANY_REGISTRY).len());

    title("What kubeadm made of the machine");
    site.await_system();
    print!("{}", indent(&site.ask(&["get", "nodes"])));
    print!("{}", indent(&site.ask(&["get", "pods", "--namespace=kube-system"])));

    title("What reach gives to a pod there that knows nothing of a proxy");
    let before = site.proxy().requests(OUTSIDE_REGISTRY).len();
    pods::install(&journey);
    pods::is_injected(&journey, "shop");
    let new = site.more_requests(OUTSIDE_REGISTRY, before).split_off(before);
    println!("  {REACH_IMAGE} and {CURL_IMAGE} came through the proxy, too:");
    print!("{}", indent(&last(&new, 2)));
    let environment = text(&site.exec("shop", "pod/client", &["env"]));
    for line in environment.lines().filter(|line| line.to_lowercase().contains("_proxy=")) {
        println!("  {}", mask(line));
    }
    println!("\nAll of it took {:.0} s.", start.elapsed().as_secs_f32());
    ExitCode::SUCCESS
}

fn title(text: &str) {
    println!("\n{text}:");
}

fn indent(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| all + "  " + line + "\n")
}

/// The last of some lines.
fn last(lines: &[String], count: usize) -> String {
    lines[lines.len().saturating_sub(count)..].join("\n")
}
