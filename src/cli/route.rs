//! `reach route`: which clients go through a proxy, and why.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::input::PresetInput;
use super::{Failure, Output};
use crate::clients::{Client, Environment, Route, Target, route};

mod container;
pub(super) mod env_file;

/// Say for each HTTP client whether it reaches a URL directly or through a proxy, and why
///
/// Clients read the same variables differently. Nothing is connected to: each client has a model here, which is compared with the real program, all but .NET (docs/clients.md).
/// The variables are those of the current environment, of a file, or of a container as the webhook would change it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach route https://web.corp.example/
  reach route http://10.96.0.1:8080/ --env /etc/environment --client curl,go,java
  reach route http://mysql.shop.svc/ -f deployment.yaml --presets presets/ --container web
  reach route http://[fd00::1]/ -o json | jq '.[].routes[] | select(.route == \"error\")'")]
pub struct Arguments {
    /// URL with http or https; may be repeated
    #[arg(value_name = "URL", required = true, value_parser = url)]
    urls: Vec<Url>,
    /// Only these clients [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = client_names())]
    client: Vec<Client>,
    /// Variables from a file of KEY=VALUE lines such as /etc/environment, or - for standard input
    #[arg(long, value_name = "FILE|-", conflicts_with = "filename")]
    env: Option<PathBuf>,
    /// Variables of a container: manifest of a pod or workload, or - for standard input
    #[arg(short, long, value_name = "FILE|-")]
    filename: Option<PathBuf>,
    /// Container of it [default: the first one]
    #[arg(long, value_name = "NAME", requires = "filename")]
    container: Option<String>,
    /// Address to which a host resolves where the client runs; Ruby alone looks at it
    #[arg(long, value_name = "HOST=ADDRESS,...", value_delimiter = ',', value_parser = resolution)]
    resolve: Vec<(String, IpAddr)>,
    #[command(flatten)]
    presets: PresetInput,
    /// Form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// A URL as given, and taken apart.
#[derive(Clone, Debug)]
pub struct Url {
    /// As given.
    pub text: String,
    /// Taken apart.
    pub target: Target,
}

/// The routes to a URL.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    url: &'a str,
    routes: Vec<ClientRoute>,
}

#[derive(Debug, Serialize)]
struct ClientRoute {
    client: &'static str,
    #[serde(flatten)]
    route: Route,
}

pub(super) fn url(text: &str) -> Result<Url, String> {
    Ok(Url { text: text.to_owned(), target: text.parse()? })
}

fn client_names() -> impl TypedValueParser<Value = Client> {
    PossibleValuesParser::new(Client::ALL.map(Client::name)).try_map(|name| name.parse::<Client>())
}

fn resolution(text: &str) -> Result<(String, IpAddr), String> {
    let wrong = || "expected HOST=ADDRESS, for example web.corp.example=10.96.0.1".to_owned();
    let (host, address) = text.split_once('=').ok_or_else(wrong)?;
    Ok((host.to_ascii_lowercase(), address.parse().map_err(|_| wrong())?))
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let environment = environment(arguments)?;
    let clients = if arguments.client.is_empty() { &Client::ALL[..] } else { &arguments.client };
    let answers: Vec<Answer<'_>> = arguments
        .urls
        .iter()
        .map(|url| {
            let host = url.target.host().to_ascii_lowercase();
            let addresses = arguments.resolve.iter().filter(|(name, _)| *name == host).map(|(_, ip)| *ip);
            let target = url.target.clone().resolving_to(addresses.collect());
            let route = |client: &Client| ClientRoute {
                client: client.name(),
                route: route(*client, &environment, &target),
            };
            Answer { url: &url.text, routes: clients.iter().map(route).collect() }
        })
        .collect();
    match arguments.output {
        Output::Json => super::print(&(serde_json::to_string_pretty(&answers)? + "\n"))?,
        Output::Text => super::print(&text(&answers))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn environment(arguments: &Arguments) -> Result<Environment, Failure> {
    if let Some(file) = &arguments.filename {
        return container::environment(file, arguments.container.as_deref(), &arguments.presets);
    }
    arguments.presets.refuse("--presets is for the container of a pod: give its manifest with -f")?;
    if let Some(file) = &arguments.env {
        return env_file::read(file);
    }
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    Ok(std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect())
}

fn text(answers: &[Answer<'_>]) -> String {
    let mut text = String::new();
    let verdict = |route: &Route| match route {
        Route::Direct { .. } => "direct".to_owned(),
        Route::Proxied { variable, .. } => format!("proxied by {variable}"),
        Route::Error { .. } => "error".to_owned(),
    };
    let routes = || answers.iter().flat_map(|answer| &answer.routes);
    let name_width = routes().map(|route| route.client.len()).max().unwrap_or_default();
    let width = routes().map(|route| verdict(&route.route).len()).max().unwrap_or_default();
    for answer in answers {
        let _ = writeln!(text, "{}", answer.url);
        for ClientRoute { client, route } in &answer.routes {
            let _ = writeln!(text, "  {client:name_width$}  {:width$}  {}", verdict(route), route.why());
        }
    }
    text
}
