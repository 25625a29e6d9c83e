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

    /// The files of an Ignition configuration, in order. It is of specification 2, as Cluster API writes it.
    ///
    /// # Panics
    /// When it is none.
    pub fn ignition_files(&self) -> Vec<WrittenFile> {
        assert_eq!(self.format, "ignition");
        let config: Value = serde_json::from_str(&self.text).expect("JSON");
        let files = config["storage"]["files"].as_array().expect("files").iter();
        files.map(|file| ignited(file).unwrap_or_else(|| panic!("{file}"))).collect()
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

/// A file of an Ignition configuration, as Ignition reads it.
fn ignited(file: &Value) -> Option<WrittenFile> {
    let (kind, data) = file["contents"]["source"].as_str()?.strip_prefix("data:")?.split_once(',')?;
    let content = match kind {
        "" => percent_decoded(data)?,
        ";base64" => STANDARD.decode_to_vec(data).ok()?,
        _ => return None,
    };
    let owner = |of: &str| file[of]["name"].as_str().map(str::to_owned).or(Some(file[of]["id"].to_string()));
    Some(WrittenFile {
        path: file["path"].as_str()?.to_owned(),
        owner: format!("{}:{}", owner("user")?, owner("group")?),
        permissions: format!("{:04o}", file["mode"].as_u64()?),
        content: String::from_utf8(content).ok()?,
    })
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let [first, others @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(others.get(..2)?).ok()?;
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &others[2..];
        } else {
            decoded.push(*first);
            rest = others;
        }
    }
    Some(decoded)
}
