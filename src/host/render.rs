//! What a node gets, in the forms that bring it there: cloud-config, a `KubeadmConfigSpec`, Ignition.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::node::{File, Node, SCRIPT};
use super::targets::MARK;
use crate::manifest;

/// Longest `content` of a file of a `KubeadmConfigSpec`, in characters (its CRD, `files[].content`, `maxLength`).
pub const LONGEST_CONTENT: usize = 10_240;

/// Most characters of user data that reach a machine of vSphere: a value of guestinfo has 64 KiB (open-vm-tools,
/// lib/include/guest_msg_def.h), and what is in it is base64.
pub const LONGEST_USER_DATA: usize = 64 * 1024;

/// How Cluster API hands user data to a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bootstrap {
    /// cloud-init, which knows compressed files.
    #[default]
    CloudConfig,
    /// Ignition, for which Cluster API refuses compressed files.
    Ignition,
}

/// How the content of a file is written.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// `encoding` of a file: `None` for text as it is.
    pub encoding: Option<&'static str>,
    /// The text.
    pub text: String,
}

/// A file whose content does not fit into a `KubeadmConfigSpec`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path} has {characters} characters {form}, of which a KubeadmConfig takes {LONGEST_CONTENT}: {}write a name above many names or a network for many addresses in no_proxy{}",
    shown(.longest.as_ref()), if *.takes_secret { ", or keep the file in a Secret with --env-secret NAME" } else { "" }
)]
pub struct TooLong {
    /// The file.
    pub path: String,
    /// How long it is.
    pub characters: usize,
    /// In which form.
    pub form: &'static str,
    /// The variable that makes it so, and how long its value is.
    pub longest: Option<(String, usize)>,
    /// Whether the file can be in a Secret instead.
    pub takes_secret: bool,
}

fn shown(longest: Option<&(String, usize)>) -> String {
    let shown = |(name, bytes): &(String, usize)| format!("the longest value is {name} with {bytes} bytes; ");
    longest.map(shown).unwrap_or_default()
}

/// The content of a file for a `KubeadmConfigSpec`.
///
/// It is base64, which neither Jinja (with which every cloud-config of Cluster API is read) nor the indentation that
/// Cluster API gives it changes; compressed when it would be too long and the bootstrap format allows it.
///
/// # Errors
/// When it is too long however it is written. Nothing is ever cut.
pub fn content(file: &File, bootstrap: Bootstrap) -> Result<Content, TooLong> {
    let content = Content::base64(file);
    if content.text.len() <= LONGEST_CONTENT {
        return Ok(content);
    }
    if bootstrap == Bootstrap::Ignition {
        return Err(TooLong::new(file, content.text.len(), "in base64 (Ignition takes no compressed files)"));
    }
    let text = base64_simd::STANDARD.encode_to_string(compressed(&file.content));
    if text.len() <= LONGEST_CONTENT {
        return Ok(Content { encoding: Some("gzip+base64"), text });
    }
    Err(TooLong::new(file, text.len(), "in gzip+base64"))
}

/// The content of a file in which clusterctl fills in variables: plain, because it would not find them in base64.
///
/// # Errors
/// When it is too long as it is.
pub fn plain(file: &File) -> Result<Content, TooLong> {
    let characters = file.content.chars().count();
    if characters > LONGEST_CONTENT {
        return Err(TooLong::new(file, characters, "as plain text, in which clusterctl fills in variables"));
    }
    Ok(Content { encoding: None, text: file.content.clone() })
}

/// The same bytes for the same text: neither a name nor a time is in them.
fn compressed(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder
        .write_all(text.as_bytes())
        .and_then(|()| encoder.finish())
        .expect("writing to memory does not fail")
}

/// A file of a `KubeadmConfigSpec` (bootstrap.cluster.x-k8s.io, `files[]`, the same in v1beta1 and v1beta2), of which
/// Cluster API makes one of cloud-config (`write_files[]`) with the same fields.
#[must_use]
pub fn kubeadm_file(file: &File, content: Content) -> Value {
    let mut item = json!({"path": file.path, "owner": "root:root", "permissions": mode(file.mode)});
    if let Some(encoding) = content.encoding {
        item["encoding"] = encoding.into();
    }
    item["content"] = content.text.into();
    item
}

/// A file of a `KubeadmConfigSpec` whose content is in a Secret, as text or in base64. Cluster API puts the value where
/// `content` would be and leaves `encoding` as it is (`resolveFiles` of its bootstrap provider), so cloud-init and Ignition
/// decode it.
#[must_use]
pub fn kubeadm_file_from(file: &File, secret: &str, is_plain: bool) -> Value {
    let mut item = json!({"path": file.path, "owner": "root:root", "permissions": mode(file.mode)});
    if !is_plain {
        item["encoding"] = "base64".into();
    }
    item["contentFrom"] = json!({"secret": {"name": secret, "key": file.name()}});
    item
}

/// `files` and `preKubeadmCommands`, for people who put them into their manifests themselves.
///
/// # Errors
/// Every file that is too long.
pub fn kubeadm(node: &Node, bootstrap: Bootstrap) -> Result<String, Vec<TooLong>> {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for file in &node.files {
        match content(file, bootstrap) {
            Ok(content) => files.push(kubeadm_file(file, content)),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let fragment = json!({"files": files, "preKubeadmCommands": node.commands});
    Ok(format!("{MARK}\n{}", manifest::to_yaml(&fragment)))
}

/// A complete cloud-config.
///
/// It says how it joins other parts of multi-part user data (cloud-init, "Merging user-data sections"): by default a later
/// part would take away whole keys of an earlier one. Lists are put in front, so that its commands run before those of the
/// parts that stand before it.
#[must_use]
pub fn cloud_config(node: &Node) -> String {
    let file = |file: &File| kubeadm_file(file, Content::base64(file));
    let config = json!({
        "merge_how": "list(prepend)+dict(no_replace,recurse_list)+str()",
        "write_files": node.files.iter().map(file).collect::<Vec<_>>(),
        "runcmd": node.commands,
    });
    // cloud-init knows a cloud-config by its first line.
    format!("#cloud-config\n{MARK}\n{}", manifest::to_yaml(&config))
}

/// An Ignition configuration (specification 3.3.0), which Butane takes as well (`ignition.config.merge`).
///
/// Ignition runs before systemd, so services find their files when they start. What has to run is a unit: certificates and
/// what goes into files of others have no place in Ignition.
#[must_use]
pub fn ignition(node: &Node) -> String {
    let file = |file: &File| {
        let content = base64_simd::STANDARD.encode_to_string(&file.content);
        json!({
            "path": file.path,
            // Otherwise Ignition fails where the image has such a file.
            "overwrite": true,
            "mode": file.mode,
            "user": {"name": "root"},
            "group": {"name": "root"},
            "contents": {"source": format!("data:;base64,{content}")},
        })
    };
    let unit = format!(
        "{MARK}\n\
         [Unit]\n\
         Description=Proxy configuration of reach\n\
         Before=containerd.service crio.service docker.service kubelet.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart=/bin/sh {SCRIPT} --no-restart\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    );
    let config = json!({
        "ignition": {"version": "3.3.0"},
        "storage": {"files": node.files.iter().map(file).collect::<Vec<_>>()},
        "systemd": {"units": [{"name": "reach-proxy.service", "enabled": true, "contents": unit}]},
    });
    format!("{config:#}\n")
}

/// Permissions as text: without quotes, YAML reads `0600` as a number, and cloud-init refuses it.
fn mode(mode: u32) -> String {
    format!("{mode:04o}")
}

// === impl Content ===

impl Content {
    /// The content of a file in base64.
    pub(super) fn base64(file: &File) -> Self {
        Self { encoding: Some("base64"), text: base64_simd::STANDARD.encode_to_string(&file.content) }
    }
}

// === impl TooLong ===

impl TooLong {
    /// A file that takes so many characters in a form.
    pub(super) fn new(file: &File, characters: usize, form: &'static str) -> Self {
        // What stands in front of `=` elsewhere, as in apt.conf, may be a part of a password.
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        };
        let lines = file.content.lines().filter(|_| file.has_values);
        let longest = lines
            .filter_map(|line| line.strip_prefix("export ").unwrap_or(line).split_once('='))
            .filter(|(name, _)| is_name(name))
            .map(|(name, value)| (name.to_owned(), value.len()))
            .max_by_key(|(_, bytes)| *bytes);
        Self { path: file.path.clone(), characters, form, longest, takes_secret: file.has_values }
    }

    /// The same where no Secret can be referred to.
    #[must_use]
    pub(super) fn without_secret(self) -> Self {
        Self { takes_secret: false, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::host::node::{Options, System};
    use crate::host::values::Setting;
    use crate::inject::preset::ProxyVariable;

    fn node(list: &str) -> Node {
        let settings = [(ProxyVariable::Http, "http://me:a%40b@p:1"), (ProxyVariable::No, list)]
            .map(|(proxy, value)| Setting { proxy, value: value.to_owned(), secret: false });
        Node::new(&settings, &Options::default()).unwrap()
    }

    fn decoded(text: &str) -> String {
        String::from_utf8(base64_simd::STANDARD.decode_to_vec(text).unwrap()).unwrap()
    }

    /// A list that does not compress to nothing.
    fn list(entries: u32) -> String {
        let address = |number: u32| {
            let mixed = number.wrapping_mul(2_654_435_761);
            std::net::Ipv4Addr::from(mixed).to_string()
        };
        (0..entries).map(address).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn a_fragment_has_files_and_the_command_and_reads_back() {
        let text = kubeadm(&node("localhost"), Bootstrap::CloudConfig).unwrap();
        assert!(text.starts_with(MARK));
        let fragment = manifest::documents(&text)[0].read().unwrap().unwrap();
        assert_eq!(fragment["preKubeadmCommands"], json!(["sh /etc/reach/apply-proxy.sh"]));
        let first = &fragment["files"][0];
        assert_eq!(first["path"], "/etc/reach/proxy.env");
        assert_eq!((&first["owner"], &first["permissions"]), (&json!("root:root"), &json!("0600")));
        assert_eq!(first["encoding"], "base64");
        assert_eq!(decoded(first["content"].as_str().unwrap()), node("localhost").files[0].content);
    }

    #[test]
    fn what_is_too_long_is_compressed_where_that_is_allowed_and_never_cut() {
        let long = &node(&list(400)).files[0];
        let packed = content(long, Bootstrap::CloudConfig).unwrap();
        assert_eq!(packed.encoding, Some("gzip+base64"));
        let bytes = base64_simd::STANDARD.decode_to_vec(&packed.text).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
        assert_eq!(text, long.content);
        assert!(content(long, Bootstrap::CloudConfig).unwrap() == packed);
        let error = content(long, Bootstrap::Ignition).err().unwrap().to_string();
        for expected in ["/etc/reach/proxy.env has", "Ignition", "no_proxy with", "--env-secret"] {
            assert!(error.to_lowercase().contains(&expected.to_lowercase()), "{error}");
        }
        let error = content(&node(&list(4000)).files[0], Bootstrap::CloudConfig).err().unwrap();
        assert!(error.characters > LONGEST_CONTENT && error.form == "in gzip+base64");
        assert!(plain(long).is_err() && plain(&node("web").files[0]).unwrap().encoding.is_none());
    }

    #[test]
    fn a_file_that_is_too_long_is_named_with_a_variable_and_nothing_of_its_values() {
        let value = format!("http://me:s3=cret@p:1/{}", "x=".repeat(9000));
        let settings = [Setting { proxy: ProxyVariable::Http, value, secret: false }];
        let system = vec![System::Apt, System::Profile];
        let node = Node::new(&settings, &Options { system, ..Options::default() }).unwrap();
        let errors = kubeadm(&node, Bootstrap::Ignition).unwrap_err();
        let found: Vec<(&str, Option<&str>)> = errors
            .iter()
            .map(|error| (&*error.path, error.longest.as_ref().map(|(name, _)| &**name)))
            .collect();
        let expected = [
            ("/etc/reach/proxy.env", Some("HTTP_PROXY")),
            ("/etc/profile.d/reach-proxy.sh", Some("HTTP_PROXY")),
            ("/etc/apt/apt.conf.d/95reach-proxy", None),
        ];
        assert_eq!(found, expected);
        for error in errors {
            assert!(!error.to_string().contains("s3"), "{error}");
        }
    }

    #[test]
    fn a_cloud_config_is_known_by_its_first_line_and_joins_others() {
        let text = cloud_config(&node("localhost"));
        assert!(text.starts_with("#cloud-config\n"));
        let config = manifest::documents(&text)[0].read().unwrap().unwrap();
        assert_eq!(config["merge_how"], "list(prepend)+dict(no_replace,recurse_list)+str()");
        assert_eq!(config["write_files"][0]["permissions"], "0600");
        assert_eq!(config["runcmd"], json!(["sh /etc/reach/apply-proxy.sh"]));
    }

    #[test]
    fn ignition_has_the_same_files_and_a_unit_that_restarts_nothing() {
        let config: Value = serde_json::from_str(&ignition(&node("localhost"))).unwrap();
        let files = config["storage"]["files"].as_array().unwrap();
        assert_eq!(files.len(), node("localhost").files.len());
        assert_eq!(files[0]["mode"], 0o600);
        let source = files[0]["contents"]["source"].as_str().unwrap();
        assert_eq!(
            decoded(source.strip_prefix("data:;base64,").unwrap()),
            node("localhost").files[0].content
        );
        let unit = config["systemd"]["units"][0]["contents"].as_str().unwrap();
        assert!(unit.contains("ExecStart=/bin/sh /etc/reach/apply-proxy.sh --no-restart\n"));
    }
}
