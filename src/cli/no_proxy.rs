//! `reach no-proxy`: the list that a pod gets, entry by entry.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::Failure;
use super::inject::{place, read_pod};
use super::input::{self, PresetInput};
use crate::api::{NoProxyForm, NoProxySource};
use crate::clients::{Client, Route, Target};
use crate::inject::merge::Outcome;
use crate::inject::preset::{PresetLevel, ProxyVariable, VariableValue};
use crate::inject::snapshot::Namespace;
use crate::inject::workload::workloads;
use crate::inject::{self, Target as Into};
use crate::lint::probe;
use crate::manifest;
use crate::no_proxy::portable::{Author, List, unite};
use crate::no_proxy::{Union, entries};

/// Print the no_proxy list that a pod gets, each entry with its origin
///
/// Without a list and without a manifest: what a pod of the namespace gets that says nothing itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach no-proxy 'localhost, *.corp.example 10.10.192.1/18'
  reach no-proxy -n shop --presets presets/
  reach no-proxy -f deployment.yaml --check http://mysql:3306/
  export no_proxy=$(reach no-proxy .corp.example,10.0.0.0/8 -o value)")]
pub struct Arguments {
    /// A list as you would write it, instead of what presets say
    #[arg(value_name = "LIST", allow_hyphen_values = true)]
    list: Option<String>,
    /// Manifest of a pod or workload, whose own list is united with that of presets, or - for standard input
    #[arg(short, long, value_name = "FILE|-", conflicts_with = "list")]
    filename: Option<PathBuf>,
    /// Container of it [default: the first one]
    #[arg(long, value_name = "NAME", requires = "filename")]
    container: Option<String>,
    /// Write the list in this form [default: what the presets say, else portable]
    #[arg(long, value_name = "FORM")]
    form: Option<Form>,
    /// Say for each client whether it reaches this URL directly with the list; may be repeated
    #[arg(long, value_name = "URL", value_parser = super::route::url)]
    check: Vec<super::route::Url>,
    #[command(flatten)]
    presets: PresetInput,
    /// Form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// The same for every client
    Portable,
    /// Entries as they were written
    AsWritten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// An entry a line, with its origin
    Text,
    /// The value, as in a variable
    Value,
    /// For machines
    Json,
}

/// A list that goes into the value, and who wrote it.
struct Source {
    origin: String,
    author: Author,
    text: String,
}

/// What is known of a list.
struct Sources {
    lists: Vec<Source>,
    form: NoProxyForm,
    /// What the engine makes of it.
    value: String,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    entry: &'a str,
    origins: Vec<&'a str>,
}

/// Where entries come from that nobody wrote.
const ALWAYS: &str = "always there";

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Sources { lists: sources, form, mut value } = match &arguments.list {
        Some(list) => {
            arguments.presets.refuse("--presets is for the list of a pod: leave LIST out")?;
            let source = Source { origin: "the list".to_owned(), author: Author::Preset, text: list.clone() };
            let value = write(NoProxyForm::Portable, std::slice::from_ref(&source));
            Sources { lists: vec![source], form: NoProxyForm::Portable, value }
        }
        None => of_pod(arguments)?,
    };
    let wanted = match arguments.form {
        Some(Form::Portable) => NoProxyForm::Portable,
        Some(Form::AsWritten) => NoProxyForm::AsWritten,
        None => form,
    };
    if wanted != form {
        value = write(wanted, &sources);
    }
    let left_out = left_out(wanted, &sources);
    for (origin, entry) in &left_out {
        super::complain(&format!(
            "warning: {entry} of {origin} is left out: httpx fails for every URL when it is in the list"
        ));
    }
    let lines = lines(&value, wanted, &sources);
    let text = match arguments.output {
        Output::Value => value.clone() + "\n",
        Output::Text => text(&lines) + &checks(arguments, &value),
        Output::Json => {
            let left_out: Vec<_> =
                left_out.iter().map(|(origin, entry)| json!({"entry": entry, "origins": [origin]})).collect();
            let checks: Vec<_> = arguments.check.iter().map(|url| check_json(url, &value)).collect();
            let all = json!({"value": value, "entries": lines, "leftOut": left_out, "checks": checks});
            serde_json::to_string_pretty(&all)? + "\n"
        }
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What a pod gets: that of a manifest, or one that says nothing.
fn of_pod(arguments: &Arguments) -> Result<Sources, Failure> {
    let lookup = arguments.presets.lookup()?;
    let Some(file) = &arguments.filename else {
        let (_, _, namespace) = lookup.namespace(None).map_err(|error| Failure::Messages(vec![error]))?;
        let pod = json!({"spec": {"containers": [{"name": "app"}]}}).to_string();
        return sources(&pod, "", None, &namespace).map_err(|error| Failure::Messages(vec![error]));
    };
    let files = input::files(std::slice::from_ref(file))?;
    let wrong = |message: String| Failure::Messages(vec![format!("{}: {message}", file.display())]);
    let mut objects = Vec::new();
    for file in &files {
        for document in manifest::documents(&file.text) {
            let object = document.read();
            objects.extend(object.map_err(|error| wrong(format!("document {}: {error}", document.number)))?);
        }
    }
    let found: Vec<_> = objects.iter().flat_map(workloads).collect();
    let workload = input::only(&found).map_err(wrong)?;
    let (_, _, namespace) = lookup.namespace(workload.namespace).map_err(wrong)?;
    let pod = workload.pod.to_string();
    sources(&pod, &workload.pointer, arguments.container.as_deref(), &namespace)
        .map_err(|message| wrong(format!("{}: {message}", workload.reference)))
}

/// The lists that make the `no_proxy` of a container.
fn sources(
    pod: &str,
    pointer: &str,
    container: Option<&str>,
    namespace: &Namespace<'_>,
) -> Result<Sources, String> {
    let pod = read_pod(pod, pointer)?;
    let plan = inject::plan(namespace, &pod, Into::Pod)
        .map_err(|error| format!("{}{error}", place(pointer)))?
        .map_err(|reason| format!("nothing is injected: {}", super::explain::in_words(reason)))?;
    let spec = pod.spec.as_ref();
    let named = plan.containers.iter().filter_map(|planned| {
        Some((planned, spec.and_then(|spec| planned.list.of(spec).get(planned.index))?))
    });
    let first =
        |(planned, _): &(&inject::ContainerPlan<'_>, _)| planned.list == inject::ContainerList::Regular;
    let mut candidates: Vec<_> = named.collect();
    candidates.sort_by_key(|candidate| !first(candidate));
    let chosen = match container {
        Some(name) => candidates.iter().find(|(_, container)| *container.name == *name),
        None => candidates.first(),
    };
    let (planned, container) = chosen.ok_or_else(|| match container {
        Some(name) => format!("no container {name} is injected"),
        None => "no container is injected".to_owned(),
    })?;
    let mut variables = plan.variables(planned);
    let (variable, outcome) = variables
        .find(|(variable, _)| variable.identity().name.eq_ignore_ascii_case(ProxyVariable::No.lower()))
        .ok_or("no preset that applies has a no_proxy")?;
    let own: Vec<_> = container.env.iter().filter(|own| variable.identity().is(&own.name)).collect();
    let own_source = |text: &str| Source {
        origin: format!("container {}", &*container.name),
        author: Author::Pod,
        text: text.to_owned(),
    };
    let value = match outcome {
        Outcome::Added => variable.value.literal().map(str::to_owned),
        Outcome::Merged { value, .. } => Some(value.clone()),
        Outcome::Kept | Outcome::Unmergeable => {
            return match own.last().filter(|own| !own.is_from()) {
                Some(own) => Ok(Sources {
                    lists: vec![own_source(own.literal())],
                    form: NoProxyForm::AsWritten,
                    value: own.literal().to_owned(),
                }),
                None => Err(format!("no_proxy of container {} comes from elsewhere", &*container.name)),
            };
        }
    };
    let value = value.ok_or("no_proxy comes from elsewhere: a valueFrom is not read here")?;
    let mut sources = Vec::new();
    for part in &variable.parts {
        if let VariableValue::Literal(text) = &part.variable().value {
            let origin = match part.preset.level {
                PresetLevel::Cluster => part.preset.reference().to_owned(),
                PresetLevel::Namespace => format!("{} of the namespace", part.preset.reference()),
            };
            sources.push(Source { origin, author: Author::Preset, text: text.to_string() });
        }
        for source in part.preset.no_proxy_from() {
            let texts: Vec<&str> = namespace.lists(&[*source]).flat_map(List::texts).collect();
            let origin = format!("{}, for {}", in_words(*source), part.preset.reference());
            sources.push(Source { origin, author: Author::Preset, text: texts.join(",") });
        }
    }
    sources.extend(own.iter().map(|own| own_source(own.literal())));
    let form = match variable.value {
        inject::merge::Value::List(_) => NoProxyForm::AsWritten,
        _ => NoProxyForm::Portable,
    };
    Ok(Sources { lists: sources, form, value })
}

fn in_words(source: NoProxySource) -> &'static str {
    match source {
        NoProxySource::Services => "Services of the namespace",
        NoProxySource::AllServices => "Services of all namespaces",
        NoProxySource::ClusterNetwork => "network of the cluster",
        NoProxySource::Nodes => "nodes of the cluster",
    }
}

fn write(form: NoProxyForm, sources: &[Source]) -> String {
    match form {
        NoProxyForm::Portable => {
            let lists: Vec<List> =
                sources.iter().map(|source| List::parse(&source.text, source.author)).collect();
            unite(lists.iter())
        }
        NoProxyForm::AsWritten => {
            let mut union = Union::default();
            for source in sources {
                union.add(&source.text);
            }
            union.join()
        }
    }
}

fn left_out(form: NoProxyForm, sources: &[Source]) -> Vec<(String, String)> {
    let lists = sources.iter().filter(|_| form == NoProxyForm::Portable).map(|source| {
        let list = List::parse(&source.text, source.author);
        list.left_out().iter().map(|entry| (source.origin.clone(), entry.to_string())).collect::<Vec<_>>()
    });
    lists.flatten().collect()
}

fn lines<'a>(value: &'a str, form: NoProxyForm, sources: &'a [Source]) -> Vec<Line<'a>> {
    let of_sources: Vec<(&str, BTreeSet<String>)> = sources
        .iter()
        .map(|source| {
            let entries: BTreeSet<String> = match form {
                NoProxyForm::Portable => {
                    let list = List::parse(&source.text, source.author);
                    list.texts().flat_map(|text| text.split(',')).map(str::to_owned).collect()
                }
                NoProxyForm::AsWritten => entries(&source.text).map(str::to_ascii_lowercase).collect(),
            };
            (&*source.origin, entries)
        })
        .collect();
    entries(value)
        .map(|entry| {
            let has = |known: &BTreeSet<String>| {
                known.contains(entry) || known.contains(&entry.to_ascii_lowercase())
            };
            let mut origins: Vec<&str> =
                of_sources.iter().filter(|(_, known)| has(known)).map(|(origin, _)| *origin).collect();
            origins.dedup();
            if origins.is_empty() {
                origins.push(ALWAYS);
            }
            Line { entry, origins }
        })
        .collect()
}

fn text(lines: &[Line<'_>]) -> String {
    let width = lines.iter().map(|line| line.entry.len()).max().unwrap_or_default();
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{:width$}  {}", line.entry, line.origins.join("; "));
        text
    })
}

/// How clients reach a target with this list and a proxy. Java does not read the list; `reach route` says what it is told.
fn routes(target: &Target, value: &str) -> Vec<(Client, Route)> {
    let environment = probe::with_list(value);
    let clients = Client::ALL.into_iter().filter(|client| *client != Client::Java);
    clients.map(|client| (client, probe::ask(client, &environment, target))).collect()
}

fn checks(arguments: &Arguments, value: &str) -> String {
    let mut text = String::new();
    for url in &arguments.check {
        let routes = routes(&url.target, value);
        let _ = writeln!(text, "\n{}", url.text);
        for (word, is) in [
            ("direct", (|route| matches!(route, Route::Direct { .. })) as fn(&Route) -> bool),
            ("proxied", |route| matches!(route, Route::Proxied { .. })),
            ("error", |route| matches!(route, Route::Error { .. })),
        ] {
            let names: Vec<&str> =
                routes.iter().filter(|(_, route)| is(route)).map(|(client, _)| client.name()).collect();
            if names.len() == routes.len() {
                let _ = writeln!(text, "  {word:7}  every client");
            } else if !names.is_empty() {
                let _ = writeln!(text, "  {word:7}  {}", names.join(", "));
            }
        }
    }
    text
}

fn check_json(url: &super::route::Url, value: &str) -> serde_json::Value {
    let routes: serde_json::Map<_, _> = routes(&url.target, value)
        .into_iter()
        .map(|(client, route)| (client.name().to_owned(), json!(route)))
        .collect();
    json!({"url": url.text, "routes": routes})
}
