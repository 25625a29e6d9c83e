//! What is in the bootstrap data of a machine.

use base64_simd::STANDARD;
use reach::manifest::documents;
use serde_json::Value;

/// The bootstrap data of a machine: what its operating system is given at its first start.
#[derive(Clone, Debug)]
pub struct UserData {
    /// The text as it is in the Secret.
    pub text: String,
    /// `cloud-config` or `ignition`.
    pub format: String,
}

/// A file that the operating system writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenFile {
    /// Where it goes.
    pub path: String,
    /// `USER:GROUP`.
    pub owner: String,
    /// Octal digits.
    pub permissions: String,
    /// What is in it, decoded.
    pub content: String,
}

impl UserData {
    /// The files of a cloud-config, in order.
    ///
    /// # Panics
    /// When it is none, or has files in a form that Cluster API does not write.
    pub fn files(&self) -> Vec<WrittenFile> {
        let config = self.cloud_config();
        let files = config["write_files"].as_array().expect("files");
        files.iter().map(|file| written(file).unwrap_or_else(|| panic!("{file}"))).collect()
    }

    /// The file that the operating system writes to a path.
    ///
    /// # Panics
    /// When there is none or more than one.
    #[track_caller]
    pub fn file(&self, path: &str) -> WrittenFile {
        let files: Vec<_> = self.files().into_iter().filter(|file| file.path == path).collect();
        assert_eq!(files.len(), 1, "{path}");
        files.into_iter().next().expect("one")
    }

    /// What runs, in order; kubeadm is the last of it.
    pub fn commands(&self) -> Vec<String> {
        let config = self.cloud_config();
        let commands = config["runcmd"].as_array().expect("commands").iter();
        commands.map(|command| command.as_str().expect("a line of a shell").to_owned()).collect()
    }

    fn cloud_config(&self) -> Value {
        assert_eq!(self.format, "cloud-config");
        let text = self.text.strip_prefix("## template: jinja\n#cloud-config\n").expect("a cloud-config");
        documents(text)[0].read().expect("YAML").expect("a document")
    }
}

/// A file of a cloud-config, as cloud-init reads it.
fn written(file: &Value) -> Option<WrittenFile> {
    let field = |name: &str| Some(file[name].as_str()?.to_owned());
    let content = field("content")?;
    let content = match &file["encoding"] {
        Value::Null => content,
        encoding if encoding == "base64" => {
            String::from_utf8(STANDARD.decode_to_vec(content.trim()).ok()?).ok()?
        }
        _ => return None,
    };
    Some(WrittenFile {
        path: field("path")?,
        owner: field("owner").unwrap_or_else(|| "root:root".to_owned()),
        permissions: field("permissions").unwrap_or_else(|| "0644".to_owned()),
        content,
    })
}
