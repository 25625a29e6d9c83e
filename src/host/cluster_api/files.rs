//! Files that a configuration puts on hosts.

use serde_json::Value as Json;

use super::field::{Field, Report};
use crate::manifest;

/// A file of a configuration.
pub(super) struct File<'m> {
    pub(super) field: Field<'m>,
    pub(super) path: &'m str,
    pub(super) content: Content,
}

/// What is in a file, as far as the configuration shows it.
pub(super) enum Content {
    /// As it is written. Jinja and clusterctl read it before the host does.
    Plain(String),
    /// What was in base64, which nobody reads before the host does.
    Encoded(String),
    /// It is compressed, or elsewhere.
    Hidden,
}

/// Where the kubelet takes static pods from.
const STATIC_PODS: &str = "/etc/kubernetes/manifests/";

/// The files of a configuration, given where its `KubeadmConfigSpec` is.
pub(super) fn files<'m>(spec: &Field<'m>, report: &mut Report) -> Vec<File<'m>> {
    let mut files = Vec::new();
    for field in spec.at("files").items(report) {
        let Some(path) = field.at("path").text(report) else { continue };
        let text = field.at("content").text(report);
        let content = match (field.at("encoding").text(report), text) {
            (None, Some(text)) => Content::Plain(text.to_owned()),
            (Some("base64"), Some(text)) => {
                let text: String = text.split_ascii_whitespace().collect();
                let decoded = base64_simd::STANDARD.decode_to_vec(text).ok();
                decoded
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .map_or(Content::Hidden, Content::Encoded)
            }
            _ => Content::Hidden,
        };
        files.push(File { field, path, content });
    }
    files
}

// === impl File ===

impl File<'_> {
    /// Its text; `None` if the configuration does not show it.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Plain(text) | Content::Encoded(text) => Some(text),
            Content::Hidden => None,
        }
    }

    /// Whether it is the manifest of a static pod.
    pub(super) fn is_static_pod(&self) -> bool {
        self.path.starts_with(STATIC_PODS)
    }
}

/// What the manifest of kube-vip says; nothing if it is none of it.
///
/// # Errors
/// If it cannot be read as YAML.
pub(super) fn kube_vip(text: &str) -> Result<Vec<Vip>, manifest::Error> {
    let mut vips = Vec::new();
    // Most files are no manifest of it, and reading YAML is what costs.
    if !text.contains("kube-vip") {
        return Ok(vips);
    }
    for document in manifest::documents(text) {
        let Some(pod) = document.read()? else { continue };
        for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
            let is_it = |field: &str| container[field].as_str().is_some_and(|text| text.contains("kube-vip"));
            if is_it("image") || is_it("name") {
                vips.extend(vip(container));
            }
        }
    }
    Ok(vips)
}

/// The address that kube-vip holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vip {
    /// An address, a name, or a variable.
    pub(super) address: String,
    /// It is announced in the network of the nodes, so it has to be one of its addresses.
    pub(super) is_arp: bool,
}

/// `vip_address` is the name of old versions.
fn vip(container: &Json) -> Option<Vip> {
    let env = |name: &str| {
        let variables = container["env"].as_array().into_iter().flatten();
        let own = variables.rev().find(|variable| variable["name"] == name)?;
        own["value"].as_str().filter(|value| !value.is_empty())
    };
    let address = env("address").or_else(|| env("vip_address"))?.to_owned();
    Some(Vip { address, is_arp: env("vip_arp") == Some("true") })
}
