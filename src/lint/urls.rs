//! Rules about variables that name a proxy, and about references in any of them.

use super::probe::{self, PROXY, names, verb};
use super::rules::Id;
use super::{Finding, Findings, Scope, Severity, mask};
use crate::clients::proxy::{self, Written};
use crate::clients::{Client, Environment, Route, Target};
use crate::inject::preset::ProxyVariable;

/// Characters that have to be percent-encoded in a user or password (RFC 3986, section 3.2.1), with their encodings.
const ENCODED: [(char, &str); 8] = [
    ('@', "%40"),
    ('#', "%23"),
    ('/', "%2F"),
    ('?', "%3F"),
    (' ', "%20"),
    ('"', "%22"),
    ('\'', "%27"),
    ('\\', "%5C"),
];

/// The host of a proxy URL.
pub(super) fn host(url: &str) -> Option<&str> {
    Some(Written::read(url).host.trim_matches(['[', ']'])).filter(|host| !host.is_empty())
}

pub(super) fn check(findings: &mut Findings<'_>, index: usize, variable: ProxyVariable, value: &str) {
    if value.trim().is_empty() {
        return;
    }
    let url = Written::read(value);
    if let Some(userinfo) = url.userinfo {
        credentials(findings, index, value, userinfo, url.scheme);
    }
    // What a reference stands for decides how the rest is read.
    if value.starts_with("$(") || (url.host.starts_with("$(") && url.userinfo.is_none()) {
        return;
    }
    if let Some(wrong) = malformed(value, url) {
        let (message, advice) = wrong;
        let (mut breaks, clients) = harm(variable, value);
        if clients.is_empty() {
            "each client reads what is behind it in its own way".clone_into(&mut breaks);
        }
        findings.add(Finding::new(Id::E7, index, message, advice).breaking(breaks, clients));
    } else if let Some(scheme) = url.scheme {
        self::scheme(findings, index, variable, value, scheme);
    }
}

/// What is wrong with a URL, and what to write.
fn malformed(value: &str, url: Written<'_>) -> Option<(String, String)> {
    let encode = |c: char, place: &str| {
        let escape = ENCODED.iter().find(|(known, _)| *known == c).map_or("%..", |(_, escape)| escape);
        (
            format!("{} is not encoded in the {place} of the proxy's URL", quoted(c)),
            format!("{escape} instead of {}", quoted(c)),
        )
    };
    if let Some(c) = value.chars().find(|c| c.is_control()) {
        return Some((
            format!("the proxy's URL has the control character {}", quoted(c)),
            "the URL in one line".into(),
        ));
    }
    if let Some(c) = url.userinfo.and_then(|userinfo| {
        userinfo.chars().find(|c| ENCODED.iter().any(|(known, _)| known == c) || c.is_whitespace())
    }) {
        return Some(encode(c, "user or password"));
    }
    if let Some(c) = value.chars().find(|c| matches!(c, '\'' | '"')) {
        return Some((
            format!("the proxy's URL has the quote {} in it", quoted(c)),
            "the URL without quotes: what belongs to YAML or to a shell stands outside of the value".into(),
        ));
    }
    if value.contains(char::is_whitespace) {
        return Some(("the proxy's URL has white space in it".into(), "the URL without it".into()));
    }
    if url.rest.contains('#') {
        return Some((
            "# ends the proxy's URL".into(),
            "%23 if it is part of the user or password, else the URL without it".into(),
        ));
    }
    if url.scheme.is_none() {
        let written = proxy::without_credentials(value);
        return Some(("the proxy has no scheme".into(), format!("http://{}", mask::shown(&written))));
    }
    if url.host.is_empty() || url.host == "[]" {
        return Some((
            "the proxy's URL has no host".into(),
            "a URL as in http://proxy.corp.example:3128".into(),
        ));
    }
    let digits = url.port.unwrap_or_default();
    // A reference is a number for all that is known.
    let is_port = digits.is_empty()
        || digits.contains("$(")
        || (digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok());
    (!is_port).then(|| {
        (
            "the port of the proxy is no number up to 65535".into(),
            "a URL as in http://proxy.corp.example:3128".into(),
        )
    })
}

fn quoted(c: char) -> String {
    if c == ' ' { "a space".to_owned() } else { format!("{c:?}").replace('\'', "`").replace("`\\``", "`'`") }
}

/// E7 for schemes that not every client speaks to a proxy.
fn scheme(findings: &mut Findings<'_>, index: usize, variable: ProxyVariable, value: &str, scheme: &str) {
    let scheme = scheme.to_ascii_lowercase();
    if scheme == "http" || scheme.contains("$(") {
        return;
    }
    let (mut breaks, clients) = harm(variable, value);
    if clients.is_empty() {
        "clients that do not speak it to a proxy, or do not trust the proxy's certificate, fail for every URL"
            .clone_into(&mut breaks);
    }
    let message = match scheme.as_str() {
        "https" => "https:// means TLS to the proxy itself, whatever the target".to_owned(),
        _ => format!("{}:// is no scheme that every client speaks to a proxy", mask::shown(&scheme)),
    };
    let advice =
        "http:// unless the proxy answers on a TLS port: it is the scheme of the proxy, also in https_proxy";
    findings.add(
        Finding::new(Id::E7, index, message, advice).breaking(breaks, clients).severity(Severity::Warning),
    );
}

/// What breaks because of how a proxy is written, and for which clients: for those that go through a proxy which the same
/// variable names properly, they fail, or go past it.
fn harm(variable: ProxyVariable, value: &str) -> (String, Vec<Client>) {
    // No model speaks FTP.
    let schemes: &[&str] = match variable {
        ProxyVariable::Http => &["http"],
        ProxyVariable::Https => &["https"],
        ProxyVariable::All => &["http", "https"],
        ProxyVariable::Ftp | ProxyVariable::No => &[],
    };
    let with = |value: &str| Environment::from_iter([(variable.lower(), value), (variable.upper(), value)]);
    let (well, here) = (with(PROXY), with(value));
    let (mut failing, mut passing) = (Vec::new(), Vec::new());
    for client in probe::readers() {
        let routes: Vec<Route> = schemes
            .iter()
            .filter_map(|scheme| format!("{scheme}://web.example/").parse::<Target>().ok())
            .filter(|target| matches!(probe::ask(client, &well, target), Route::Proxied { .. }))
            .map(|target| probe::ask(client, &here, &target))
            .collect();
        if routes.iter().any(|route| matches!(route, Route::Error { .. })) {
            failing.push(client);
        } else if routes.iter().any(|route| matches!(route, Route::Direct { .. })) {
            passing.push(client);
        }
    }
    let urls = format!("every {} URL", schemes.join(" and "));
    let mut parts = Vec::new();
    if !failing.is_empty() {
        parts.push(format!("{} {} for {urls}", names(&failing), verb(&failing, "fails", "fail")));
    }
    if !passing.is_empty() {
        parts.push(format!("{} {} past the proxy", names(&passing), verb(&passing, "goes", "go")));
    }
    failing.append(&mut passing);
    (parts.join("; "), failing)
}

/// E8 and W10: who may read the password.
fn credentials(findings: &mut Findings<'_>, index: usize, value: &str, userinfo: &str, scheme: Option<&str>) {
    let scope = findings.subject.scope;
    let password = userinfo.split_once(':').map(|(_, password)| password);
    let literal = |text: &str| !without_references(text).is_empty();
    let start = scheme.map_or(0, |scheme| scheme.len() + 3);
    let range = start..start + userinfo.len();
    let (readers, advice) = match scope {
        Scope::Preset => (
            "everybody who reads presets or pods, and the audit log of the API server, has it",
            "the URL in a Secret, and valueFrom with a secretKeyRef instead of value; or a variable from a Secret in front, and $(PROXY_PASSWORD) in the URL",
        ),
        Scope::Container { .. } => (
            "everybody who reads pods, and the audit log of the API server, has it",
            "valueFrom with a secretKeyRef instead of value; or a variable from a Secret in front, and $(PROXY_PASSWORD) in the URL",
        ),
        Scope::File => (
            "everybody who reads the file has it, and /etc/environment is for everybody",
            "the proxy without a password (a local forwarder such as cntlm can hold it), or a file that only its reader may open",
        ),
    };
    if password.is_some_and(literal) {
        let mut finding = Finding::new(Id::E8, index, "a password in the proxy's URL", advice)
            .at(value, range)
            .breaking(readers, Vec::new());
        finding.entry = None;
        if scope == Scope::File {
            finding.severity = Severity::Warning;
        }
        findings.add(finding);
        return;
    }
    // A password that stands in another variable is as open as one here.
    let names: Vec<String> = references_in(userinfo).map(str::to_owned).collect();
    let open = names.iter().find(|name| {
        let mut effective = findings.subject.effective();
        effective.any(|(_, variable)| {
            variable.name == **name && variable.value.as_ref().is_some_and(|value| literal(value))
        })
    });
    if let Some(name) = open.filter(|_| scope != Scope::File) {
        let finding = Finding::new(
            Id::W10,
            index,
            format!("$({name}) in the proxy's URL is a variable with its value in the open"),
            format!("valueFrom with a secretKeyRef for {name}"),
        )
        .breaking(readers, Vec::new());
        findings.add(finding);
    } else if password.is_none() && literal(userinfo) {
        let finding = Finding::new(
            Id::W10,
            index,
            "a user without a password in the proxy's URL",
            "nothing, if it is only a name; a token belongs into a Secret, by valueFrom",
        )
        .breaking(readers, Vec::new())
        .severity(Severity::Info);
        findings.add(finding);
    }
}

/// The names in `$(NAME)`; `$$(NAME)` is text.
fn references_in(value: &str) -> impl Iterator<Item = &str> {
    value.match_indices("$(").filter_map(|(at, _)| {
        let dollars = value[..at].bytes().rev().take_while(|byte| *byte == b'$').count();
        let name = value[at + 2..].split_once(')')?.0;
        dollars.is_multiple_of(2).then_some(name)
    })
}

/// What is left of a text without its references.
fn without_references(text: &str) -> String {
    let mut left = text.to_owned();
    for name in references_in(text) {
        left = left.replace(&format!("$({name})"), "");
    }
    left
}

/// Whether the kubelet may know it from a Service, which is as good as a variable in front: the API server's it always
/// knows, others only with links. Which ones there are is not known here.
fn is_of_service(name: &str, has_links: bool) -> bool {
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let is_any = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(is_name)
        && (name.ends_with("_SERVICE_HOST") || is_part(name, "_SERVICE_PORT") || is_part(name, "_PORT"));
    let is_api_server = name == "KUBERNETES_SERVICE_HOST"
        || ["KUBERNETES_SERVICE_PORT", "KUBERNETES_PORT"]
            .iter()
            .any(|port| name.strip_prefix(port).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')));
    is_api_server || (has_links && is_any)
}

/// Whether a name ends with a word, or has it and `_` in it.
fn is_part(name: &str, word: &str) -> bool {
    name.ends_with(word) || name.contains(&format!("{word}_"))
}

/// W11: references that nothing defines.
pub(super) fn references(findings: &mut Findings<'_>, index: usize, value: &str) {
    let subject = findings.subject;
    // Other presets, and the container itself, may define it.
    if subject.scope == Scope::Preset || subject.is_open {
        return;
    }
    for name in references_in(value) {
        let is_known = |variable: &super::Variable| variable.name == name;
        let (message, advice) = match subject.scope {
            Scope::File => (
                format!("nothing expands $({name}) in a file"),
                "the value itself: $(NAME) is for containers only".to_owned(),
            ),
            Scope::Container { has_service_links } if is_of_service(name, has_service_links) => continue,
            _ if subject.variables[..index].iter().any(is_known) => continue,
            _ if subject.variables.iter().any(is_known) => (
                format!("$({name}) is defined behind its use, so it stays as it is"),
                format!("{name} in front of this variable"),
            ),
            _ => (
                format!("nothing defines $({name}), so it stays as it is"),
                format!("{name} as a variable in front of this one"),
            ),
        };
        findings.add(
            Finding::new(Id::W11, index, message, advice)
                .breaking("clients see the text itself, with the dollar sign", Vec::new()),
        );
    }
}
