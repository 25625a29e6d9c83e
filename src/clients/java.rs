//! Java.

use super::{Environment, Route, Target, Variable, Why};

/// What is direct when the property is not set, and besides what it says when it is.
const ALWAYS: [&str; 5] = ["localhost", "127.*", "[::1]", "0.0.0.0", "[::0]"];

/// JDK src/java.base/share/classes/sun/net/spi/DefaultProxySelector.java 17, and the quotes of
/// src/hotspot/share/runtime/arguments.cpp; measured with 17.0.15.
///
/// No proxy variable is read, only system properties; here those that `JAVA_TOOL_OPTIONS` sets. An https URL has a
/// proxy of its own and shares the list.
pub fn route(environment: &Environment, target: &Target) -> Route {
    let Some(variable) = environment.get("JAVA_TOOL_OPTIONS") else {
        return Route::direct(Why::rule(
            "Java reads no proxy variables, and JAVA_TOOL_OPTIONS sets no proxy",
        ));
    };
    let Some(properties) = properties(variable.value) else {
        return Route::error(Why::variable(&variable, "a quote has no end, so Java does not start"));
    };
    let property =
        |name: &str| properties.iter().rev().find(|(known, _)| known == name).map(|(_, v)| v.as_str());
    let prefixes =
        target.scheme().choose(["http.proxy", "proxy", "socksProxy"], ["https.proxy", "proxy", "socksProxy"]);
    let found = prefixes.iter().find_map(|prefix| {
        let host = property(&format!("{prefix}Host")).filter(|host| !host.is_empty())?;
        let port = property(&format!("{prefix}Port")).unwrap_or_default();
        Some((host, port))
    });
    let Some((host, port)) = found else {
        return Route::direct(Why::variable(
            &variable,
            target.scheme().choose("it does not set http.proxyHost", "it does not set https.proxyHost"),
        ));
    };
    if let Some((entry, rule)) = matching(property("http.nonProxyHosts"), target) {
        return Route::direct(Why::entry(&variable, entry, rule));
    }
    let proxy = if port.is_empty() { host.to_owned() } else { format!("{host}:{port}") };
    let found = Variable { name: variable.name, value: &proxy };
    Route::proxied(&found, Why::variable(&variable, "no entry of http.nonProxyHosts matches"))
}

/// `toPattern`, `disjunctToRegex`: `*` at the beginning and the end of an entry stand for anything.
fn matching<'a>(list: Option<&'a str>, target: &Target) -> Option<(&'a str, &'static str)> {
    let host = target.bracketed().to_lowercase();
    let matches = |entry: &str| {
        let entry = entry.to_lowercase();
        match (entry.strip_prefix('*'), entry.strip_suffix('*')) {
            (Some(""), _) => true,
            (Some(rest), Some(_)) => host.contains(rest.strip_suffix('*').unwrap_or_default()),
            (Some(rest), None) => host.ends_with(rest),
            (None, Some(rest)) => host.starts_with(rest),
            (None, None) => host == entry,
        }
    };
    let own =
        list.unwrap_or_default().split('|').filter(|entry| !entry.is_empty()).find(|entry| matches(entry));
    if let Some(entry) = own {
        return Some((entry, "the entry of http.nonProxyHosts matches, * at either end stands for anything"));
    }
    // An empty list is one without these, too.
    if list == Some("") {
        return None;
    }
    ALWAYS
        .into_iter()
        .find(|entry| matches(entry))
        .map(|entry| (entry, "this machine's own names and addresses are always in http.nonProxyHosts"))
}

/// The properties that the options set, in order. Quotes keep white space and go; `None` when one has no end.
fn properties(options: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = options.trim_start_matches(is_space);
    while !rest.is_empty() {
        let mut option = String::new();
        let mut quote = None;
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            match quote {
                None if is_space(c) => {
                    end = at;
                    break;
                }
                None if matches!(c, '"' | '\'') => quote = Some(c),
                Some(open) if c == open => quote = None,
                _ => option.push(c),
            }
        }
        if quote.is_some() {
            return None;
        }
        if let Some(property) = option.strip_prefix("-D") {
            let (name, value) = property.split_once('=').unwrap_or((property, ""));
            found.push((name.to_owned(), value.to_owned()));
        }
        rest = rest[end..].trim_start_matches(is_space);
    }
    Some(found)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}
