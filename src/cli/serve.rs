//! `reach serve`: the webhook.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::input::ClusterOptions;
use crate::admin::Admin;
use crate::admission::{Admission, PATH};
use crate::certs::{self, CertMetrics, CertResolver};
use crate::presets::{Presets, cluster, directory};
use crate::server::{Bound, ConnectionMetrics, Drain, Limits, Server};
use crate::telemetry::{self, LogFormat, PresetMetrics, ReviewMetrics};

/// Serve the admission webhook
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach serve --presets examples/presets                  presets from files, a certificate made at start
  reach serve --tls-cert tls.crt --tls-key tls.key        presets from the cluster, a certificate from files

SIGTERM drains: requests are served until clients know that this server is going (--drain), then it ends.
SIGINT (Ctrl-C) ends as soon as the requests in flight have been answered.")]
pub struct Arguments {
    /// Presets (and Namespaces, for their labels) from files or folders, reloaded when they change; without it, from the cluster
    #[arg(long, value_name = "PATH", num_args = 1.., env = "REACH_PRESETS", value_delimiter = ':')]
    presets: Vec<PathBuf>,
    /// Address of the webhook
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9443", env = "REACH_LISTEN")]
    listen: SocketAddr,
    /// Address of /livez, /readyz and /metrics (plain HTTP)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9080", env = "REACH_ADMIN_LISTEN")]
    admin_listen: SocketAddr,
    /// Certificate chain as PEM, reloaded when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "REACH_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// Private key as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "REACH_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// DNS names and IP addresses of the certificate that is made at start [default: localhost and the address of --listen]
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        conflicts_with = "tls_cert",
        env = "REACH_TLS_NAMES"
    )]
    tls_names: Vec<String>,
    /// Where to write the CA of the certificate that is made at start
    #[arg(long, value_name = "FILE", conflicts_with = "tls_cert", env = "REACH_CA_OUT")]
    ca_out: Option<PathBuf>,
    /// How long to go on serving after SIGTERM, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20, env = "REACH_DRAIN")]
    drain: u64,
    /// Form of the log
    #[arg(long, value_name = "FORMAT", default_value = "auto", env = "REACH_LOG_FORMAT")]
    log_format: LogFormat,
    /// What to log: error, warn, info, debug, trace, or target=level pairs
    #[arg(long, value_name = "FILTER", default_value = "info", env = "REACH_LOG")]
    log: String,
    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    telemetry::init(arguments.log_format, &arguments.log).with_context(|| {
        format!("--log {}: expected a level such as info, or target=level", arguments.log)
    })?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> Result<ExitCode, Failure> {
    let mut registry = telemetry::registry();
    let presets = Arc::new(Presets::default());
    let drain = Drain::default();

    let preset_metrics = PresetMetrics::register(&mut registry);
    load_presets(&arguments, &presets, &preset_metrics).await?;
    let (resolver, ca) = serving_certificate(&arguments, &mut registry)?;

    let limits = Limits { drain: Duration::from_secs(arguments.drain), ..Limits::default() };
    let connections = |registry: &mut Registry, listener: &'static str| {
        ConnectionMetrics::register(registry.sub_registry_with_label(("listener".into(), listener.into())))
    };
    let webhook = Server::new(limits.clone(), connections(&mut registry, "webhook"))
        .with_tls(certs::server_config(resolver)?)
        .bind(arguments.listen)
        .await
        .with_context(|| "--listen")?;
    let admin = Server::new(limits, connections(&mut registry, "admin"))
        .bind(arguments.admin_listen)
        .await
        .with_context(|| "--admin-listen")?;

    let admission = Admission::new(Arc::clone(&presets), ReviewMetrics::register(&mut registry));
    let admission = admission.service();
    let status = TowerToHyperService::new(Admin::new(presets, drain.clone(), registry).router());

    announce(&arguments, &webhook, &admin, ca.as_deref())?;
    let now = stop_signals(drain.clone())?;
    let served =
        async { tokio::join!(webhook.serve(admission, drain.clone()), admin.serve(status, drain.clone())) };
    tokio::select! {
        _ = served => {}
        () = now => {}
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Starts the source of presets. Files are read before anything serves, so that their errors end it here.
async fn load_presets(
    arguments: &Arguments,
    presets: &Arc<Presets>,
    metrics: &PresetMetrics,
) -> Result<(), Failure> {
    if arguments.presets.is_empty() {
        let client = kube::Client::try_from(arguments.cluster.config().await?)?;
        tokio::spawn(cluster::watch(client, Arc::clone(presets), metrics.clone()));
    } else {
        let loaded = directory::load(&arguments.presets)
            .map_err(|errors| Failure::Messages(errors.iter().map(ToString::to_string).collect()))?;
        directory::publish(&loaded, presets, metrics);
        let (paths, presets) = (arguments.presets.clone(), Arc::clone(presets));
        tokio::spawn(directory::watch(paths, presets, metrics.clone(), directory::RELOAD_EVERY));
    }
    Ok(())
}

/// The certificate to serve, and the CA to trust when it is our own.
fn serving_certificate(
    arguments: &Arguments,
    registry: &mut Registry,
) -> Result<(Arc<CertResolver>, Option<String>), Failure> {
    let metrics = CertMetrics::register(registry);
    if let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        let (resolver, reloader) = certs::from_files(certificate, key)?;
        tokio::spawn(reloader.run(certs::RELOAD_EVERY, metrics));
        return Ok((resolver, None));
    }
    let mut names = arguments.tls_names.clone();
    if names.is_empty() {
        names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let own = arguments.listen.ip();
        if !own.is_loopback() && !own.is_unspecified() {
            names.push(own.to_string());
        }
    }
    let made = certs::self_made(&names)?;
    metrics.observe(&made.resolver);
    if let Some(file) = &arguments.ca_out {
        write_whole(file, &made.ca_pem)
            .with_context(|| format!("--ca-out: cannot write {}", file.display()))?;
    }
    Ok((made.resolver, Some(made.ca_pem)))
}

/// Writes a file so that a reader never sees half of it.
fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".new");
    std::fs::write(&unfinished, text)?;
    std::fs::rename(&unfinished, file)
}

/// Says where it listens and, to a person, how to try it.
fn announce(arguments: &Arguments, webhook: &Bound, admin: &Bound, ca: Option<&str>) -> Result<(), Failure> {
    let mut text = format!(
        "webhook  https://{}{PATH}\nadmin    http://{}  (/livez, /readyz, /metrics)\n",
        webhook.address(),
        admin.address()
    );
    if io::stdout().is_terminal() {
        let trust = match (&arguments.ca_out, ca) {
            (Some(file), Some(_)) => format!("--cacert {}", file.display()),
            _ => "--insecure".to_owned(),
        };
        let _ = writeln!(
            text,
            "try      curl --silent {trust} -H content-type:application/json -d '{REVIEW}' https://{}{PATH}",
            webhook.address()
        );
    }
    super::print(&text)?;
    Ok(())
}

/// The smallest review that gets injected.
const REVIEW: &str = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE","namespace":"default","resource":{"group":"","version":"v1","resource":"pods"},"object":{"spec":{"containers":[{"name":"app"}]}}}}"#;

/// Starts the drain on SIGTERM. The future ends when there is nothing to wait for: on SIGINT, once what
/// is in flight has had a moment, or on a second signal.
fn stop_signals(drain: Drain) -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {
                tracing::info!("draining");
                drain.start();
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            _ = interrupt.recv() => {
                drain.start();
                tokio::time::sleep(INTERRUPT_GRACE).await;
            }
        }
    })
}

/// What requests in flight get after SIGINT. A review takes microseconds; this is for its way through the
/// network.
const INTERRUPT_GRACE: Duration = Duration::from_millis(200);
