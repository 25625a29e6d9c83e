//! The table of rules: what `reach lint --explain` and docs/lint.md say.

use std::fmt::{self, Write};

use super::Severity;
use Severity::{Error, Info, Warning};

/// The id of a rule. Ids are stable: one that goes is not given to another rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table says what they are")]
pub enum Id {
    E1,
    E2,
    E3,
    E4,
    E5,
    E6,
    E7,
    E8,
    W1,
    W2,
    W3,
    W4,
    W5,
    W6,
    W7,
    W8,
    W9,
    W10,
    W11,
    I1,
    I2,
    I3,
    I4,
    I5,
}

/// A rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its id.
    pub id: Id,
    /// How bad a finding is, unless the explanation says otherwise.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub title: &'static str,
    /// Whether `--fix` helps.
    pub is_fixable: bool,
    /// What happens to it in a preset that reach writes in the portable form.
    pub in_presets: &'static str,
    /// Why it matters and when it applies.
    pub explanation: &'static str,
    /// What is wrong, as an example.
    pub wrong: &'static str,
    /// The same as it should be.
    pub right: &'static str,
}

const REPORTED: &str = "reported";
const REWRITTEN: &str = "reach rewrites it";

/// All rules, in the order of their ids.
pub static RULES: [Rule; 24] = [
    Rule {
        id: Id::E1,
        severity: Error,
        title: "URL where a host is expected",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "Clients compare an entry with the host of a URL, so an entry with a scheme, a path or a user matches nothing. httpx alone takes a URL. It is kept as it is: without its scheme it would let more past the proxy than it does now.",
        wrong: "no_proxy=http://web.corp.example/api",
        right: "no_proxy=web.corp.example",
    },
    Rule {
        id: Id::E2,
        severity: Error,
        title: "Separator that is no comma",
        is_fixable: true,
        in_presets: "white space: reach rewrites it; `;` and control characters: reported",
        explanation: "Only a comma separates entries for every client. White space separates for curl before 8.9, undici, Node's fetch, axios and Ruby; all others see one long entry that matches nothing. A line break gets in by a folded YAML scalar or a file. `;` separates nowhere. `--fix` puts commas where white space is; a `;` stays, because nobody can know what was meant.",
        wrong: "no_proxy=\"web.corp.example 10.0.0.1;db\"",
        right: "no_proxy=web.corp.example,10.0.0.1,db",
    },
    Rule {
        id: Id::E3,
        severity: Error,
        title: "The two spellings of a variable differ, or one is missing",
        is_fixable: true,
        in_presets: "reach writes both spellings, unless letterCase is AsWritten",
        explanation: "curl and wget read lower case only (curl: of http_proxy), Go and reqwest look at upper case first, the others at lower case. With two values, two clients in one container take two routes. Info where every client that reach knows reads the spelling that is there, and where a variable is set to nothing, which is how a container switches a proxy off. Variables from envFrom are not known here: with one, nothing is said to be missing. What is compared are the values with $(NAME) replaced as the kubelet does it: `NO_PROXY: $(no_proxy)` behind no_proxy is the same. `--fix` unites both lists and writes both spellings of no_proxy, unless one of two is `*` alone, which has no union with another, or refers to the other one or to what does not stand in front of both; proxies it does not touch.",
        wrong: "no_proxy=web.corp.example\nNO_PROXY=10.0.0.1",
        right: "no_proxy=web.corp.example,10.0.0.1\nNO_PROXY=web.corp.example,10.0.0.1",
    },
    Rule {
        id: Id::E4,
        severity: Error,
        title: "No host, address or network",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "An entry that looks like an address or a network and is none (10.96., 10.96.*, 10.0.0.300, 10.96.0.0/33), a port that is no number, or a text that no name can be. No client reads it. It stays in the value and in what reach writes, so that nothing is lost without a word; an entry that makes a client fail is left out of what reach writes.",
        wrong: "no_proxy=10.96.*,10.0.0.0/33",
        right: "no_proxy=10.96.0.0/16,10.0.0.0/24",
    },
    Rule {
        id: Id::E5,
        severity: Error,
        title: "IPv6 network, or IPv6 address in brackets",
        is_fixable: false,
        in_presets: "brackets: reach rewrites them; networks: reported, and left out of what reach writes",
        explanation: "httpx makes a URL of each entry when it starts, and fails for every request if one of them is none. An IPv6 network, an address in brackets and one with a port are such entries. In a file of variables it is a warning: hosts run Go and curl, which read IPv6 networks (curl from 8.18).",
        wrong: "no_proxy=fd00::/64,[fd00::1]",
        right: "no_proxy=.corp.example,corp.example,fd00::1",
    },
    Rule {
        id: Id::E6,
        severity: Error,
        title: "The API server is reached through the proxy, or reaches the cluster through it",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "A kube-apiserver that inherits a proxy asks the proxy for webhooks and aggregated APIs, and so admission fails: its no_proxy needs .svc, etcd and the address of its own Service. Everything else with a proxy needs the address of that Service and the endpoint of the control plane. This is decided by what is in the input, with the model of Go: a container whose command is kube-apiserver and its flags (--service-cluster-ip-range, --advertise-address, --etcd-servers), a ClusterConfiguration of kubeadm (also in its ConfigMap), the Service default/kubernetes, the ServiceCIDR kubernetes. Without one of these in the input, nothing is known and nothing is said. Of presets only a ClusterPodPreset is looked at that has a proxy and a list.",
        wrong: "command: [kube-apiserver, --service-cluster-ip-range=10.96.0.0/12]\nenv:\n- {name: HTTPS_PROXY, value: \"http://proxy.corp.example:3128\"}",
        right: "command: [kube-apiserver, --service-cluster-ip-range=10.96.0.0/12]\nenv:\n- {name: HTTPS_PROXY, value: \"http://proxy.corp.example:3128\"}\n- {name: NO_PROXY, value: \".svc,10.96.0.0/12,10.96.0.1\"}",
    },
    Rule {
        id: Id::E7,
        severity: Error,
        title: "Proxy URL that clients read in different ways",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "Without a scheme, several clients fail for every URL. A `@`, `#`, `/`, `?` or space in a password that is not percent-encoded ends the user or the host at another place in each client. Quotes in a value are part of it. Warning for https:// (TLS to the proxy itself, which few clients do) and for other schemes. A reference such as $(PROXY_PASSWORD) is not looked into.",
        wrong: "http_proxy=me:p@ss@proxy.corp.example:3128",
        right: "http_proxy=http://me:p%40ss@proxy.corp.example:3128",
    },
    Rule {
        id: Id::E8,
        severity: Error,
        title: "Password in a proxy URL",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "A value is read by everybody who reads the preset or the pod, stands in `kubectl describe`, and goes into the audit log of the API server. Put it into a Secret and refer to it: only the name goes through all of these. The variable with the password has to stand in front of the one that uses it. Warning in a file of variables, whose readers its mode decides. No message of reach shows it.",
        wrong: "- name: http_proxy\n  value: http://me:secret@proxy.corp.example:3128",
        right: "- name: http_proxy\n  valueFrom:\n    secretKeyRef: {name: corporate-proxy, key: url}\n# or\n- name: PROXY_PASSWORD\n  valueFrom:\n    secretKeyRef: {name: corporate-proxy, key: password}\n- name: https_proxy\n  value: http://me:$(PROXY_PASSWORD)@proxy.corp.example:3128",
    },
    Rule {
        id: Id::W1,
        severity: Warning,
        title: "`*.x`, or a star inside a name",
        is_fixable: true,
        in_presets: "`*.x`: reach rewrites it; other stars: reported",
        explanation: "Only Go, undici, Node.js and axios know `*.x`; all others compare it with the host as it is. `.x` means the same to those that have lists of suffixes, and `x` beside it the name itself. A star at another place is known to axios alone, and stays as it is.",
        wrong: "no_proxy=*.corp.example",
        right: "no_proxy=.corp.example,corp.example",
    },
    Rule {
        id: Id::W2,
        severity: Warning,
        title: "`*`",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "Alone it switches the proxy off, except in wget, Ruby and .NET. Beside other entries fewer clients know it. To switch a proxy off for one container, set its proxy variables to nothing.",
        wrong: "no_proxy=web.corp.example,*",
        right: "http_proxy=",
    },
    Rule {
        id: Id::W3,
        severity: Warning,
        title: "`.x` without `x`, or `x` without `.x`",
        is_fixable: true,
        in_presets: REWRITTEN,
        explanation: "To wget, Go, httpx, axios and Ruby `.x` is what is below x, and not x itself. To Node's http agent, axios and .NET `x` is one host. Only the pair means both everywhere. `x` alone is info, because it often is one host, and a name without a dot in it is not reported: nothing is below a Service's short name.",
        wrong: "no_proxy=.corp.example",
        right: "no_proxy=.corp.example,corp.example",
    },
    Rule {
        id: Id::W4,
        severity: Warning,
        title: "Network with bits set behind its prefix",
        is_fixable: true,
        in_presets: REWRITTEN,
        explanation: "Clients that know networks take it for the whole network, so it works; people read it as one address. httpx, which looks only at what stands before the slash, takes it for one. The form that cannot be misread is the network, and the address beside it if it is an endpoint.",
        wrong: "no_proxy=10.10.192.1/18",
        right: "no_proxy=10.10.192.1,10.10.192.0/18",
    },
    Rule {
        id: Id::W5,
        severity: Warning,
        title: "Entry with a port",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "curl, wget, aiohttp and others never match it. It is kept as it is: without the port it would let all other ports past the proxy.",
        wrong: "no_proxy=web.corp.example:8080",
        right: "no_proxy=web.corp.example",
    },
    Rule {
        id: Id::W6,
        severity: Warning,
        title: "Dot at the end, upper case, white space beside a comma",
        is_fixable: true,
        in_presets: REWRITTEN,
        explanation: "A name with a dot at its end matches only hosts that are written so, in most clients. White space in front of the first entry, or of a comma, hides an entry from wget. Info where no client that reach knows minds, as with upper case.",
        wrong: "no_proxy=\" .Corp.example. , web\"",
        right: "no_proxy=.corp.example,corp.example,web",
    },
    Rule {
        id: Id::W7,
        severity: Warning,
        title: "Range without its networks, or an endpoint that only a network covers",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "Only Node's http agent reads a range `a-b`. wget, urllib, httpx, aiohttp, undici, Node.js and .NET read no networks: what they have to reach directly by its address needs an entry of its own. Endpoints are known from the input: the addresses of E6, and IPv4 addresses in http and https URLs of other variables of the same container or file.",
        wrong: "no_proxy=10.96.0.0/12\nAPI_URL=https://10.96.0.20/",
        right: "no_proxy=10.96.0.20,10.96.0.0/12",
    },
    Rule {
        id: Id::W8,
        severity: Warning,
        title: "Far more than can be meant",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "0.0.0.0/0 and ::/0 (or their halves), a network with the proxy's own address in it, a top-level domain (of the public DNS, or one that private networks use), with a dot in front or without: most clients read both as the end of a name. reach takes no Service of such a name into a list (`noProxyFrom`), and does without it. The proxy's address is known if the proxy is named by its address.",
        wrong: "no_proxy=0.0.0.0/0,.com",
        right: "no_proxy=10.0.0.0/8,.corp.example,corp.example",
    },
    Rule {
        id: Id::W9,
        severity: Warning,
        title: "IPv6 address, or a name outside of ASCII",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "Ruby splits a list at colons, too: with ::1 in it, it reaches every IPv4 address that ends in .1 past the proxy. urllib and Ruby do not match IPv6 addresses at all. A name outside of ASCII makes httpx fail for every URL; its xn-- form does not match in httpx and aiohttp. IPv6 addresses are info in a file of variables.",
        wrong: "no_proxy=fd00::25",
        right: "no_proxy=.corp.example,corp.example",
    },
    Rule {
        id: Id::W10,
        severity: Warning,
        title: "Credentials of a proxy that are half hidden",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "The URL takes the password from a variable that has it in the open, so it is hidden from nobody. Info for a user without a password, which may be a token.",
        wrong: "- {name: PROXY_PASSWORD, value: secret}\n- {name: http_proxy, value: \"http://me:$(PROXY_PASSWORD)@proxy.corp.example:3128\"}",
        right: "- name: PROXY_PASSWORD\n  valueFrom:\n    secretKeyRef: {name: corporate-proxy, key: password}\n- {name: http_proxy, value: \"http://me:$(PROXY_PASSWORD)@proxy.corp.example:3128\"}",
    },
    Rule {
        id: Id::W11,
        severity: Warning,
        title: "Reference that nothing expands",
        is_fixable: false,
        in_presets: "not looked at: other presets may define it",
        explanation: "The kubelet replaces $(NAME) by a variable that stands before it in the same container, or by one that it has of a Service: KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT and KUBERNETES_PORT always, those of other Services (DB_SERVICE_HOST) unless enableServiceLinks is false. If there is none, it leaves the reference as it is. Files of variables know no references; in a line with `export` a dollar sign is a shell's, and nothing is said. With envFrom the variable may come from there, and nothing is said.",
        wrong: "no_proxy=$(EXTRA),web",
        right: "no_proxy=web",
    },
    Rule {
        id: Id::I1,
        severity: Info,
        title: "Entry that is there twice",
        is_fixable: true,
        in_presets: REWRITTEN,
        explanation: "Harmless, but it makes lists long.",
        wrong: "no_proxy=web,WEB",
        right: "no_proxy=web",
    },
    Rule {
        id: Id::I2,
        severity: Info,
        title: "Name below a name that is there",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "It can go only if both .x and x are there: for some clients one of them alone does not cover it. A name with a dot at its end is another one.",
        wrong: "no_proxy=.corp.example,corp.example,web.corp.example",
        right: "no_proxy=.corp.example,corp.example",
    },
    Rule {
        id: Id::I3,
        severity: Info,
        title: "Address or network inside a network that is there",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "A network inside another can go. An address should stay if it is an endpoint that clients without networks have to reach (W7).",
        wrong: "no_proxy=10.0.0.0/8,10.96.0.0/12",
        right: "no_proxy=10.0.0.0/8",
    },
    Rule {
        id: Id::I4,
        severity: Info,
        title: "Name without a dot in requests before 2.34",
        is_fixable: false,
        in_presets: "not reported: the portable form needs it",
        explanation: "requests before 2.34.0 compares the ends of texts, so that `corp.example` covers notcorp.example. Reported once for a list, and not for a name beside its `.x`: that pair is the portable form, in which the name is there for the sake of other clients.",
        wrong: "no_proxy=corp.example",
        right: "no_proxy=.corp.example,corp.example",
    },
    Rule {
        id: Id::I5,
        severity: Info,
        title: "Value that is too long for what carries it",
        is_fixable: false,
        in_presets: REPORTED,
        explanation: "Older versions of PAM read lines of /etc/environment of up to 1,024 bytes, and drop what follows a longer one. VMware's guestinfo takes 64 KiB in base64 (warning). Linux takes 128 KiB for one variable and starts no process with more (error). The first two concern files of variables only. What counts is the longer one of the value and its portable form.",
        wrong: "no_proxy=10.0.0.1,10.0.0.2,10.0.0.3,...",
        right: "no_proxy=10.0.0.0/24",
    },
];

// === impl Id ===

impl Id {
    /// The rule.
    #[must_use]
    pub fn rule(self) -> &'static Rule {
        // The table is in the order of the ids; a test looks.
        &RULES[self as usize]
    }

    /// The rule of this name, in any case.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        RULES.iter().map(|rule| rule.id).find(|id| id.to_string().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}"))
    }
}

// === impl Rule ===

impl Rule {
    /// All that there is to say about it.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = format!("{}: {} ({})\n\n", self.id, self.title, self.severity);
        let _ = writeln!(text, "{}\n", self.explanation);
        let _ = writeln!(text, "In presets in the portable form: {}.", self.in_presets);
        let _ = writeln!(
            text,
            "reach lint --fix {}.",
            if self.is_fixable { "helps" } else { "leaves it to you" }
        );
        for (title, example) in [("Wrong", self.wrong), ("Right", self.right)] {
            let _ = writeln!(text, "\n{title}:");
            for line in example.lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
        text
    }
}

/// The table of docs/lint.md.
#[must_use]
pub fn table() -> String {
    let mut text =
        "| id | severity | what | `--fix` | in a preset in the portable form |\n|---|---|---|---|---|\n"
            .to_owned();
    for rule in &RULES {
        let fix = if rule.is_fixable { "yes" } else { "" };
        let _ = writeln!(
            text,
            "| [{0}](#{1}) | {2} | {3} | {fix} | {4} |",
            rule.id,
            rule.id.to_string().to_lowercase(),
            rule.severity,
            rule.title,
            rule.in_presets
        );
    }
    for rule in &RULES {
        let _ = writeln!(
            text,
            "\n### {}\n{}.\n\n{}\n```\n{}\n```\nbetter:\n```\n{}\n```",
            rule.id, rule.title, rule.explanation, rule.wrong, rule.right
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_ids_and_their_letters_are_severities() {
        for (index, rule) in RULES.iter().enumerate() {
            assert_eq!(rule.id as usize, index);
            assert_eq!(Id::find(&rule.id.to_string().to_lowercase()), Some(rule.id));
            let letter = match rule.severity {
                Error => "E",
                Warning => "W",
                Info => "I",
            };
            assert!(rule.id.to_string().starts_with(letter), "{}", rule.id);
        }
        assert_eq!(Id::find("E99"), None);
    }
}
