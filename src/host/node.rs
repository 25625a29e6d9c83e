//! What a node gets: files, and a command that makes what is installed there use them.
//!
//! One file holds the variables ([`Target::EnvironmentFile`]), and one script what has to be done once the files are
//! there, so that a command of a `KubeadmConfig` is a line in which neither clusterctl nor Jinja finds anything to replace.

use pem::{EncodeConfig, LineEnding, Pem};

use super::targets::{END, LONGEST_LINE, MARK, Target, Unit, Unwritable};
use super::values::Setting;

/// The script that makes what is installed on a node use the files.
pub const SCRIPT: &str = "/etc/reach/apply-proxy.sh";

/// Where certificates wait for [`SCRIPT`]: each distribution has another place for them.
const CERTIFICATES: &str = "/etc/reach/ca";

/// Runs [`SCRIPT`]. It never fails: what Ignition makes of commands ends with the first one that does, and a node without
/// a proxy is told of by what then cannot be pulled.
pub const APPLY: &str = "sh /etc/reach/apply-proxy.sh";

/// Gives the variables to what runs after it in the same shell: kubeadm. A shell reads the file as systemd does.
pub const EXPORT: &str = "set -a; . /etc/reach/proxy.env; set +a";

/// What of the operating system gets the variables besides services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum System {
    /// Login shells: /etc/profile.d
    Profile,
    /// Every session: /etc/environment
    Environment,
    /// apt
    Apt,
    /// dnf
    Dnf,
    /// sudo keeps the variables of who calls it
    Sudoers,
}

/// What the static pods of a control plane get: kubeadm writes the proxy variables of its own process into their
/// manifests (cmd/kubeadm/app/util/env.go), and so would give them to the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StaticPods {
    /// No proxy: they talk to the cluster only
    #[default]
    None,
    /// kubeadm runs with the variables, and hands them on
    Inherit,
    /// The variables stand in `extraEnvs` of the API server, the controller manager and the scheduler
    Explicit,
}

/// A certificate of a CA that hosts trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Name of its file, without an ending.
    pub name: String,
    /// It in PEM; one, because readers take the first of a file.
    pub pem: String,
}

/// What hosts get besides the variables for the container runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Services that get the variables.
    pub units: Vec<Unit>,
    /// What else of the operating system gets them.
    pub system: Vec<System>,
    /// Certificates that hosts trust.
    pub certificates: Vec<Certificate>,
    /// What static pods get.
    pub static_pods: StaticPods,
}

/// A file of a host, of `root`.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// What is in it.
    pub content: String,
    /// Whether variables are in it, and so perhaps a password.
    pub has_values: bool,
}

/// What a node gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its files, that of the variables first.
    pub files: Vec<File>,
    /// Commands that run before kubeadm, in order.
    pub commands: Vec<&'static str>,
}

impl Certificate {
    /// The certificates of a text, one by one; `None` where there are none, or anything else. `name` becomes a part of paths,
    /// so what would have a meaning there is replaced.
    #[must_use]
    pub fn read(name: &str, text: &str) -> Option<Vec<Self>> {
        let is_certificate = |pem: &Pem| {
            pem.tag() == "CERTIFICATE" && x509_parser::parse_x509_certificate(pem.contents()).is_ok()
        };
        let found = pem::parse_many(text).unwrap_or_default();
        if found.is_empty() || !found.iter().all(is_certificate) {
            return None;
        }
        let stem: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
        let several = found.len() > 1;
        let certificate = |(number, certificate): (usize, &Pem)| {
            let name = if several { format!("{stem}-{}", number + 1) } else { stem.clone() };
            let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
            Self { name, pem: pem::encode_config(certificate, lines) }
        };
        Some(found.iter().enumerate().map(certificate).collect())
    }
}

impl Node {
    /// What a node gets of these variables; nothing at all without any, or a certificate.
    ///
    /// # Errors
    /// Every value that a file cannot express.
    pub fn new(settings: &[Setting], options: &Options) -> Result<Self, Vec<Unwritable>> {
        if settings.is_empty() && options.certificates.is_empty() {
            return Ok(Self::default());
        }
        let mut targets = Vec::new();
        if !settings.is_empty() {
            targets.push(Target::EnvironmentFile);
            targets.extend(sorted(&options.units).into_iter().map(Target::DropIn));
            targets.extend(sorted(&options.system).into_iter().map(System::target));
        }
        let mut files = Vec::new();
        let mut errors = Vec::new();
        for target in targets {
            match target.write(settings) {
                Ok(content) => {
                    let path = target.block().map_or_else(|| target.path(), str::to_owned);
                    let has_values = !matches!(target, Target::DropIn(_) | Target::Sudoers);
                    files.push(File { path, mode: target.mode(), content, has_values });
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        for certificate in &options.certificates {
            let path = format!("{CERTIFICATES}/{}.crt", certificate.name);
            let content = format!("{MARK}\n{}\n", certificate.pem.trim());
            files.push(File { path, mode: 0o644, content, has_values: false });
        }
        let content = script(options);
        files.push(File { path: SCRIPT.to_owned(), mode: 0o700, content, has_values: false });
        let mut commands = vec![APPLY];
        if options.static_pods == StaticPods::Inherit && !settings.is_empty() {
            commands.push(EXPORT);
        }
        Ok(Self { files, commands })
    }

    /// The same for a machine that has no static pods of a control plane.
    #[must_use]
    pub fn for_worker(&self) -> Self {
        let mut node = self.clone();
        node.commands.retain(|command| *command != EXPORT);
        node
    }
}

/// Whether a path is one that reach writes, with these options or others.
#[must_use]
pub fn is_path_of_reach(path: &str) -> bool {
    path.starts_with("/etc/reach/") || path.ends_with("/10-reach-proxy.conf") || {
        let files = [Target::Profile, Target::Apt, Target::Sudoers];
        files.iter().any(|target| target.path() == path)
    }
}

/// A path without its folder.
pub(super) fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// The script, in POSIX sh. It contains none of `${`, `{{`, `{%` and `{#`, so that it is what it is also where clusterctl
/// or Jinja read it.
fn script(options: &Options) -> String {
    let mut script = format!(
        "{MARK}\n\
         # Makes what is installed here use the files of reach. It may run again, and never fails.\n\
         umask 077\n\
         say() {{ echo \"reach: $*\" >&2; }}\n"
    );
    if !options.certificates.is_empty() {
        script.push_str(TRUST);
    }
    let blocks: Vec<System> =
        sorted(&options.system).into_iter().filter(|system| system.target().block().is_some()).collect();
    if !blocks.is_empty() {
        script.push_str(&put());
    }
    for system in blocks {
        let target = system.target();
        let (file, block) = (target.path(), target.block().unwrap_or_default());
        match system {
            // dnf reads its own section only, and may not be there.
            System::Dnf => {
                script.extend(["[ ! -e ", &file, " ] || put ", &file, " ", block, " main\n"]);
            }
            System::Environment => {
                script.push_str(&short());
                script.extend(["short ", &file, " ", block, " && put ", &file, " ", block, "\n"]);
            }
            _ => script.extend(["put ", &file, " ", block, "\n"]),
        }
    }
    if options.units.is_empty() {
        script.push_str("exit 0\n");
        return script;
    }
    script.push_str(RESTART);
    for unit in sorted(&options.units) {
        // The kubelet waits for kubeadm, which starts it; a runtime has to be there before.
        let verb = if unit == Unit::Kubelet { "try-restart" } else { "restart" };
        script.extend(["again ", verb, " ", unit.name(), "\n"]);
    }
    script.push_str("exit 0\n");
    script
}

/// Each distribution has another folder for certificates, and another command that makes its bundle of them. What is no
/// longer among them goes. A runtime reads the bundle when it starts.
const TRUST: &str = r#"
# Certificates: RHEL and Fedora; SUSE; Debian and Ubuntu; Photon; Flatcar.
folder=/etc/ssl/certs ending=pem update=
if command -v update-ca-trust >/dev/null; then
  folder=/etc/pki/ca-trust/source/anchors ending=crt update='update-ca-trust extract'
elif [ -d /etc/pki/trust/anchors ]; then
  folder=/etc/pki/trust/anchors ending=crt update=update-ca-certificates
elif [ -d /usr/local/share/ca-certificates ]; then
  folder=/usr/local/share/ca-certificates ending=crt update=update-ca-certificates
elif command -v rehash_ca_certificates.sh >/dev/null; then
  update=rehash_ca_certificates.sh
elif command -v update-ca-certificates >/dev/null; then
  update=update-ca-certificates
fi
rm -f "$folder"/reach-*."$ending"
for certificate in /etc/reach/ca/*.crt; do
  name=$(basename "$certificate" .crt)
  cp "$certificate" "$folder/reach-$name.$ending" && chmod 644 "$folder/reach-$name.$ending" ||
    say "cannot copy $certificate to $folder"
done
if [ -z "$update" ]; then
  say "no command that updates the certificates of this distribution is known: $folder has them"
else
  $update >/dev/null || say "$update failed"
fi
"#;

/// A service that has not started after 90 seconds is given up by systemd itself (systemd-system.conf(5),
/// `DefaultTimeoutStartSec=`).
const RESTART: &str = r#"
# Services read their variables when they start. With --no-restart they have not started yet.
[ "$1" = --no-restart ] && exit 0
command -v systemctl >/dev/null || exit 0
again() {
  [ "$(systemctl show --property=LoadState --value "$2")" = loaded ] || return 0
  timeout 90 systemctl "$1" "$2" || say "cannot restart $2: see journalctl -u $2"
}
systemctl daemon-reload || say 'systemctl daemon-reload failed'
"#;

/// A function that puts a block into a file in which others have lines: what stood there of an earlier one goes, all else
/// stays, and nothing is written that is there already. The file is made anew beside the old one, which goes only when it is
/// whole: a full disk loses no line of others.
///
/// In a section the block comes last, because the last one of several values holds (libdnf, `ConfigParser::setValue`); in
/// each, where a file has it more than once, since they are one for the reader. sed alone finds the places: minimal images
/// have no awk.
fn put() -> String {
    format!(
        r#"
# put FILE BLOCK [SECTION]: at the end of the section, or of the file.
put() {{
  [ -e "$1" ] || (umask 022; : >"$1")
  file=$(readlink -f "$1")
  torn=$(torn "$file") && others=$(sed '/^{MARK}$/,/^{END}$/d' "$file") || {{ say "cannot read $1"; return 0; }}
  if [ -n "$torn" ]; then
    say "$1 has the first line of what reach writes without the last one ({END}), so nobody knows which lines are whose: delete those of reach; the file stays as it is"
    return 0
  fi
  if [ -n "$3" ] && [ -z "$(printf '%s\n' "$others" | sed -n "/^[[:blank:]]*\[$3\]/p")" ]; then
    say "$1 has no line [$3], behind which the lines of $2 belong: write it; the file stays as it is"
    return 0
  fi
  if ! cp -p "$file" "$file.reach" || ! with "$2" "$3" >"$file.reach"; then
    say "cannot write $1, it stays as it is"
  elif ! cmp -s "$file.reach" "$file"; then
    mv "$file.reach" "$file" || say "cannot write $1, it stays as it is"
  fi
  rm -f "$file.reach"
}}
# torn FILE: says so if a block has no end, behind which lines of others would be taken for its own.
torn() {{
  sed -n '/^{MARK}$/ {{
  x
  /./ {{
    p
    q
  }}
  s/^/torn/
  x
}}
/^{END}$/ {{
  x
  s/.*//
  x
}}
$ {{
  x
  p
}}' "$1"
}}
with() {{
  if [ -z "$2" ]; then
    {{ [ -z "$others" ] || printf '%s\n' "$others"; }} && cat "$1"
    return
  fi
  # The hold space has the header of the section while lines are in it.
  marked=$(printf '%s\n' "$others" | sed '
/^[[:blank:]]*\[/ {{
  x
  /./ i\
{MARK}
  s/.*//
  x
  /^[[:blank:]]*\['"$2"'\]/ h
}}
$!b
x
/./ {{
  x
  a\
{MARK}
  b
}}
x') && printf '%s\n' "$marked" | sed -e '/^{MARK}$/ {{' -e "r $1" -e d -e '}}'
}}
"#
    )
}

/// A function that says whether `/etc/environment` can have each line of a block. What is known of a line is checked when it
/// is written; what a cluster of a class or a variable of clusterctl adds is known on the node only.
fn short() -> String {
    format!(
        r#"
# short FILE BLOCK: whether no pam_env cuts a line of the block.
short() {{
  while IFS= read -r line; do
    [ "$(printf %s "$line" | wc -c)" -gt {LONGEST_LINE} ] || continue
    say "$(printf %s "$line" | sed 's/=.*//') has more than the {LONGEST_LINE} bytes that every pam_env reads: $1 stays as it is"
    return 1
  done <"$2"
}}
"#
    )
}

/// In one order whatever order is given, each once.
fn sorted<T: Copy + Ord>(given: &[T]) -> Vec<T> {
    let mut given = given.to_vec();
    given.sort_unstable();
    given.dedup();
    given
}

// === impl System ===

impl System {
    fn target(self) -> Target {
        match self {
            Self::Profile => Target::Profile,
            Self::Environment => Target::EtcEnvironment,
            Self::Apt => Target::Apt,
            Self::Dnf => Target::Dnf,
            Self::Sudoers => Target::Sudoers,
        }
    }
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            units: vec![Unit::Containerd],
            system: Vec::new(),
            certificates: Vec::new(),
            static_pods: StaticPods::None,
        }
    }
}

// === impl File ===

impl File {
    /// Its name without the folder: the key under which a Secret has it.
    #[must_use]
    pub fn name(&self) -> &str {
        name(&self.path)
    }
}

/// Without the content, which may be a secret.
impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.path).field("mode", &self.mode).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
