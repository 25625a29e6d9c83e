//! The files of a host that say which proxy to use, each written as its reader reads it.
//!
//! Every reader has its own idea of quotes, comments and percent signs. A writer escapes what its reader can unescape;
//! what cannot be said there is an error that says what to write instead, never a line that means something else.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::values::{FAMILIES, Setting};
use crate::inject::preset::ProxyVariable;
use crate::no_proxy;
use crate::no_proxy::entry::{Entry, Name};

/// The first line of every file, by which people and reach itself know whose it is. `#` begins a comment in all of them.
pub const MARK: &str = "# Written by reach from presets; changes are overwritten.";

/// The last line of what goes into a file in which others have lines too.
pub const END: &str = "# End of what reach has written.";

/// The file of variables.
pub const VARIABLES: &str = "/etc/reach/proxy.env";

/// A service of systemd that gets the variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Unit {
    /// containerd, which pulls images. `hosts.toml` has no proxy, so its environment is the only way
    Containerd,
    /// CRI-O, where it is the runtime
    Crio,
    /// Docker, where it is the runtime
    Docker,
    /// The kubelet, for credential providers and API servers elsewhere; images are not its business
    Kubelet,
}

/// A file of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The variables for services of systemd: the one file that drop-ins refer to, so that a secret stands in one place
    /// and one set of rules of escaping is enough.
    ///
    /// systemd.exec(5), `EnvironmentFile=`: no specifiers, no variables. `Environment=` of a unit would drop a variable
    /// with `%40` in it, and show it to every user over D-Bus.
    EnvironmentFile,
    /// The drop-in that makes a service read [`Target::EnvironmentFile`].
    DropIn(Unit),
    /// The variables for login shells (POSIX sh).
    Profile,
    /// The variables for every session, as pam_env(8) reads them. Others have lines in this file too, and keep them.
    EtcEnvironment,
    /// apt, also where it runs without an environment (`apt-daily.service`).
    Apt,
    /// dnf, also where it runs without an environment (`dnf-automatic.service`): `[main]` of its configuration, in which
    /// others have lines too, and keep them. It has no exceptions there.
    Dnf,
    /// sudo(8) keeps the variables of who calls it.
    Sudoers,
}

/// A value that a target cannot express. The message shows nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} cannot hold {}: {why}", .variable.lower())]
pub struct Unwritable {
    /// The file.
    pub path: String,
    /// The variable.
    pub variable: ProxyVariable,
    /// Why, and what to write instead.
    pub why: Why,
}

/// Why a target cannot express a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A control character, or something outside of ASCII.
    NotPrintable,
    /// A character that pam_env, or systemd for services of users, takes for something else.
    EnvironmentCharacter,
    /// White space at an end, of which readers disagree.
    EnvironmentBlank,
    /// A line of this length in bytes, longer than every pam_env reads.
    EnvironmentLength(usize),
    /// A character that apt.conf has no escape for.
    AptCharacter,
    /// Something that apt does not take for a proxy.
    AptScheme,
    /// Something that dnf does not take for a proxy.
    DnfProxy,
    /// A user or a password that dnf.conf has no escape for.
    DnfCharacter,
}

/// Longest line of `/etc/environment`, in bytes without its end. pam_env reads into a buffer of 1,024 bytes in Linux-PAM
/// 1.3.1 (RHEL 8), of 8,192 from 1.4.0 (Debian 11, Ubuntu 22.04, RHEL 9) and of any length from 1.7.0 (`BUF_SIZE` in
/// modules/pam_env/pam_env.c). Of a longer line, old ones take the beginning for all of it without a word; newer ones read
/// neither it nor what follows.
pub const LONGEST_LINE: usize = 1024 - "\n\0".len();

/// What stands in `/etc/environment` for itself in no reader, or not in all. pam_env cuts the value at `#` even between
/// quotes, takes quotes away and joins lines at `\`; systemd's user sessions read the file too (environment.d(5)) and
/// replace `$NAME`.
const ENVIRONMENT_SPECIAL: [char; 5] = ['#', '\'', '"', '\\', '$'];

/// Schemes of proxies that apt knows (apt-transport-http(1)). Without one, it takes the host for the scheme and fails.
const APT_SCHEMES: [&str; 3] = ["http://", "https://", "socks5h://"];

/// Schemes of proxies that dnf knows (dnf.conf(5), `proxy`; `OptionString` of libdnf refuses others).
const DNF_SCHEMES: [&str; 5] = ["http", "https", "socks5", "socks5h", "socks4a"];

// === impl Unit ===

impl Unit {
    /// Every unit.
    pub const ALL: [Self; 4] = [Self::Containerd, Self::Crio, Self::Docker, Self::Kubelet];

    /// Its name, as systemd has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd.service",
            Self::Kubelet => "kubelet.service",
            Self::Crio => "crio.service",
            Self::Docker => "docker.service",
        }
    }
}

// === impl Target ===

impl Target {
    /// Where the file is.
    #[must_use]
    pub fn path(self) -> String {
        match self {
            Self::EnvironmentFile => VARIABLES.to_owned(),
            Self::DropIn(unit) => format!("/etc/systemd/system/{}.d/10-reach-proxy.conf", unit.name()),
            Self::Profile => "/etc/profile.d/reach-proxy.sh".to_owned(),
            Self::EtcEnvironment => "/etc/environment".to_owned(),
            Self::Apt => "/etc/apt/apt.conf.d/95reach-proxy".to_owned(),
            Self::Dnf => "/etc/dnf/dnf.conf".to_owned(),
            Self::Sudoers => "/etc/sudoers.d/reach-proxy".to_owned(),
        }
    }

    /// Where the text waits for its place, if others have lines in the file too: a file of reach's own, from which it is
    /// put among theirs, from its first line to [`END`].
    #[must_use]
    pub fn block(self) -> Option<&'static str> {
        match self {
            Self::EtcEnvironment => Some("/etc/reach/environment"),
            Self::Dnf => Some("/etc/reach/dnf.conf"),
            _ => None,
        }
    }

    /// Its permissions. systemd reads the file of variables as root, and nobody else has to; what is for every user has
    /// to be readable by every user, with the password that may be in it.
    #[must_use]
    pub fn mode(self) -> u32 {
        match self {
            // A block is read by root alone, who puts it where it belongs.
            Self::EnvironmentFile | Self::EtcEnvironment | Self::Dnf => 0o600,
            Self::DropIn(_) | Self::Profile | Self::Apt => 0o644,
            // sudo refuses a file that others may write; its own have this mode.
            Self::Sudoers => 0o440,
        }
    }

    /// The text of the file. The same settings, in any order, give the same bytes.
    pub fn write(self, settings: &[Setting]) -> Result<String, Unwritable> {
        let in_order = FAMILIES.iter().filter_map(|proxy| settings.iter().find(|own| own.proxy == *proxy));
        let settings: Vec<&Setting> = in_order.collect();
        let lines = match self {
            Self::EnvironmentFile => self.each(&settings, |name, value| Ok(environment_file(name, value)))?,
            Self::DropIn(_) => {
                vec!["[Service]".to_owned(), format!("EnvironmentFile={VARIABLES}")]
            }
            Self::Profile => self.each(&settings, |name, value| Ok(profile(name, value)))?,
            Self::EtcEnvironment => self.each(&settings, etc_environment)?,
            Self::Apt => self.apt(&settings)?,
            Self::Dnf => self.dnf(&settings)?,
            Self::Sudoers => sudoers(&settings),
        };
        let mut text = format!("{MARK}\n");
        let end = self.block().map(|_| END.to_owned());
        for line in lines.into_iter().chain(end) {
            text.push_str(&line);
            text.push('\n');
        }
        Ok(text)
    }

    /// A line for each name of each setting.
    fn each(
        self,
        settings: &[&Setting],
        line: impl Fn(&str, &str) -> Result<String, Why>,
    ) -> Result<Vec<String>, Unwritable> {
        let mut lines = Vec::new();
        for setting in settings {
            let value = printable(&setting.value).map_err(|why| self.cannot(setting, why))?;
            for name in setting.names() {
                lines.push(line(name, value).map_err(|why| self.cannot(setting, why))?);
            }
        }
        Ok(lines)
    }

    /// apt knows `http_proxy`, `https_proxy` and `no_proxy` of its environment; the file is for where it has none.
    ///
    /// It has no list of exceptions there, only a proxy for one host each, which may be `DIRECT`. So names and IPv4
    /// addresses of `no_proxy` are said here; what is under a name, and networks, are not (networks apt does not know in
    /// its environment either). An IPv6 address is no name of an option: `::` separates its parts.
    fn apt(self, settings: &[&Setting]) -> Result<Vec<String>, Unwritable> {
        let of = |proxy| settings.iter().copied().find(|setting| setting.proxy == proxy);
        let no_proxy = of(ProxyVariable::No).map_or("", |setting| setting.value.as_str());
        let is_any = no_proxy::entries(no_proxy).eq(["*"]);
        let mut lines = Vec::new();
        let (http, https, all) = (of(ProxyVariable::Http), of(ProxyVariable::Https), of(ProxyVariable::All));
        // Without a proxy there is nothing to say, and what somebody else says in a file of apt's stands.
        if http.or(https).or(all).is_none() {
            return Ok(lines);
        }
        // apt knows no `all_proxy`; clients that do take it for what has no proxy of its own.
        for (scheme, proxy) in [("http", http.or(all)), ("https", https.or(all))] {
            let value = match proxy {
                Some(setting) if !is_any => {
                    apt_proxy(&setting.value).map_err(|why| self.cannot(setting, why))?
                }
                // Said, because without it https takes the proxy of http.
                _ => "DIRECT",
            };
            lines.push(format!("Acquire::{scheme}::Proxy \"{value}\";"));
        }
        if is_any {
            return Ok(lines);
        }
        // https takes what is said of a host for http.
        let mut direct: Vec<String> = no_proxy::entries(no_proxy).filter_map(host).collect();
        direct.sort_unstable();
        direct.dedup();
        lines.extend(direct.iter().map(|host| format!("Acquire::http::Proxy::{host} \"DIRECT\";")));
        Ok(lines)
    }

    /// One proxy for all URLs, the user and the password apart from it and as they are, not percent-encoded: dnf encodes
    /// them itself.
    fn dnf(self, settings: &[&Setting]) -> Result<Vec<String>, Unwritable> {
        let of = |proxy| settings.iter().copied().find(|setting| setting.proxy == proxy);
        // Mirrors are asked by https; dnf takes what it has for both.
        let proxy = of(ProxyVariable::Https).or(of(ProxyVariable::Http)).or(of(ProxyVariable::All));
        let Some(setting) = proxy else { return Ok(Vec::new()) };
        dnf_proxy(&setting.value).map_err(|why| self.cannot(setting, why))
    }

    fn cannot(self, setting: &Setting, why: Why) -> Unwritable {
        Unwritable { path: self.path(), variable: setting.proxy, why }
    }
}

/// Control characters end lines, and what is not ASCII stands in no URL and in no name of a host.
fn printable(value: &str) -> Result<&str, Why> {
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~')) { Ok(value) } else { Err(Why::NotPrintable) }
}

/// systemd.exec(5): between single quotes everything stands for itself but a single quote, between double quotes a
/// backslash makes the next of `` " \ ` $ `` plain. A shell reads both the same.
fn environment_file(name: &str, value: &str) -> String {
    if !value.contains('\'') {
        return format!("{name}='{value}'");
    }
    let mut quoted = String::with_capacity(value.len() + 2);
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '`' | '$') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    format!("{name}=\"{quoted}\"")
}

/// POSIX, Shell Command Language, 2.2.2: a single quote cannot stand between single quotes, so it stands between them
/// and the next ones.
fn profile(name: &str, value: &str) -> String {
    format!("export {name}='{}'", value.replace('\'', "'\\''"))
}

/// Without quotes: pam_env takes one pair away, and then what stands between them is no longer what it looks like.
fn etc_environment(name: &str, value: &str) -> Result<String, Why> {
    if value.contains(ENVIRONMENT_SPECIAL) {
        return Err(Why::EnvironmentCharacter);
    }
    if value.trim() != value {
        return Err(Why::EnvironmentBlank);
    }
    let line = format!("{name}={value}");
    if line.len() > LONGEST_LINE { Err(Why::EnvironmentLength(line.len())) } else { Ok(line) }
}

/// apt.conf(5): "Values must not include backslashes or extra quotation marks."
fn apt_proxy(value: &str) -> Result<&str, Why> {
    let value = printable(value)?;
    if value.contains(['"', '\\']) {
        return Err(Why::AptCharacter);
    }
    if APT_SCHEMES.iter().any(|scheme| value.starts_with(scheme)) { Ok(value) } else { Err(Why::AptScheme) }
}

/// dnf.conf(5): `proxy` takes scheme, host and port only.
fn dnf_proxy(value: &str) -> Result<Vec<String>, Why> {
    let (scheme, rest) = printable(value)?.split_once("://").ok_or(Why::DnfProxy)?;
    let authority = rest.trim_end_matches('/');
    let (credentials, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !DNF_SCHEMES.contains(&scheme) || host.is_empty() || host.contains(['/', '?', '#', ' ']) {
        return Err(Why::DnfProxy);
    }
    let mut lines = vec![format!("proxy={scheme}://{host}")];
    // Empty ones too: otherwise those of another proxy that stand in the file would go to ours. dnf takes an empty user for
    // none (libdnf, `newHandle` of Repo.cpp).
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    for (name, text) in [("proxy_username", user), ("proxy_password", password)] {
        let text = percent_decode_str(text).decode_utf8().map_err(|_| Why::DnfCharacter)?;
        // Blanks at the ends are taken away, and then one pair of quotes; `$name` and `${name}` are variables of dnf.
        let is_quoted = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
        if text.contains('$')
            || text.trim() != text
            || is_quoted('"')
            || is_quoted('\'')
            || printable(&text).is_err()
        {
            return Err(Why::DnfCharacter);
        }
        lines.push(format!("{name}={text}"));
    }
    Ok(lines)
}

/// The one host that an entry stands for, if apt can name it.
fn host(entry: &str) -> Option<String> {
    match Entry::parse(entry) {
        Entry::Name(Name { text, .. }) => Some(text.into()),
        Entry::Address(address) if address.is_ipv4() => Some(address.to_string()),
        _ => None,
    }
}

/// sudoers(5), `env_keep`: a list in double quotes. Names only, so nothing has to be escaped.
fn sudoers(settings: &[&Setting]) -> Vec<String> {
    let names: Vec<&str> = settings.iter().flat_map(|setting| setting.names()).collect();
    if names.is_empty() { Vec::new() } else { vec![format!("Defaults env_keep += \"{}\"", names.join(" "))] }
}

// === impl Why ===

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPrintable => f.write_str(
                "expected printable ASCII: percent-encode all else in a URL, write names of hosts in their xn-- form",
            ),
            Self::EnvironmentCharacter => f.write_str(
                "pam_env cannot read # ' \" \\ and systemd replaces $ there: percent-encode them in a URL (%23 %27 %22 %5C %24)",
            ),
            Self::EnvironmentBlank => {
                f.write_str("expected no white space at its ends: take it away, or percent-encode it in a URL (%20)")
            }
            Self::EnvironmentLength(bytes) => write!(
                f,
                "the line has {bytes} bytes, of which not every pam_env reads more than {LONGEST_LINE}: write a name above many names and a network for many addresses, or use {} instead",
                Target::Profile.path()
            ),
            Self::AptCharacter => {
                f.write_str("apt.conf has no escape for \" and \\: percent-encode them in a URL (%22 %5C)")
            }
            Self::DnfProxy => write!(
                f,
                "dnf wants scheme, host and port, the scheme one of {}: write http://host:port",
                DNF_SCHEMES.join(", ")
            ),
            Self::DnfCharacter => f.write_str(
                "dnf.conf has no escape for $, for white space at an end of a user or a password or quotes at both, nor for what is not printable ASCII: leave dnf out, or choose another password",
            ),
            Self::AptScheme => {
                f.write_str("apt wants a URL that begins with http://, https:// or socks5h://: write the scheme")
            }
        }
    }
}

#[cfg(test)]
mod tests;
