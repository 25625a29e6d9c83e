//! `reach serve`: the webhook.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures::future::Either;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::Failure;
use super::input::{ClusterNetwork, ClusterOptions};
use crate::admin::Admin;
use crate::admission::{Admission, PATH};
use crate::api_server;
use crate::certs::clients::ClientVerifier;
use crate::certs::{self, CertMetrics, CertResolver, files, managed, secret};
use crate::hooks::Hooks;
use crate::host::extension::API_VERSION;
use crate::lease::Lease;
use crate::presets::cluster::status;
use crate::presets::sources::{Accounts, Sources, Watched};
use crate::presets::{Presets, cluster, directory};
use crate::registration::{CaBundle, Keeper, Live, Registration, RegistrationMetrics, Trust};
use crate::server::{Bound, ConnectionMetrics, Drain, Limits, Server};
use crate::telemetry::{self, LogFormat, PresetMetrics, ReviewMetrics};

/// Serve the admission webhook
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach serve --presets examples/presets                  presets from files, a certificate made at start
  reach serve --tls-cert tls.crt --tls-key tls.key        presets from the cluster, a certificate from files
  reach serve --namespace reach-system --service reach --webhook-configuration reach --ca-secret reach-ca
                                                          as in a cluster: a CA in a Secret, caBundle kept right

SIGTERM drains: requests are served until clients know that this server is going (--drain), then it ends.
SIGINT (Ctrl-C) ends as soon as the requests in flight have been answered.")]
pub struct Arguments {
    /// Presets (and Namespaces, Services, ServiceCIDRs, Nodes, which they refer to) from a file or a folder (folders inside are not read), or several with : between them, reloaded when they change; may be repeated; without it, from the cluster
    #[arg(long, value_name = "PATH", env = "REACH_PRESETS", value_delimiter = ':')]
    presets: Vec<PathBuf>,
    /// What to watch in the cluster for noProxyFrom of presets
    #[arg(
        long,
        value_name = "SOURCE,...",
        value_delimiter = ',',
        conflicts_with = "presets",
        env = "REACH_NO_PROXY_FROM"
    )]
    no_proxy_from: Vec<Watched>,
    #[command(flatten)]
    network: ClusterNetwork,
    /// Write into the status of presets whether they can be used and what reach lint has against them; the replica that holds this Lease does it
    #[arg(long, value_name = "LEASE", conflicts_with = "presets", env = "REACH_STATUS_LEASE")]
    status_lease: Option<String>,
    /// Address of the webhook
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9443", env = "REACH_LISTEN")]
    listen: SocketAddr,
    /// Address of /livez, /readyz and /metrics (plain HTTP)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9080", env = "REACH_ADMIN_LISTEN")]
    admin_listen: SocketAddr,
    #[command(flatten)]
    certificate: CertificateOptions,
    #[command(flatten)]
    registration: RegistrationOptions,
    /// Also answer Cluster API's Runtime Hooks, at the address of the webhook: hosts of ClusterClass clusters get the proxy of presets
    #[arg(long, env = "REACH_CLUSTER_API_HOOKS")]
    cluster_api_hooks: bool,
    /// CA certificates of clients as PEM, reloaded when they change; without it, anybody may call
    #[arg(long, value_name = "FILE", env = "REACH_CLIENT_CA", help_heading = "Clients")]
    client_ca: Option<PathBuf>,
    /// Common names or DNS names that a client's certificate has to have one of
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        requires = "client_ca",
        env = "REACH_CLIENT_NAMES",
        help_heading = "Clients"
    )]
    client_names: Vec<String>,
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

/// Where the serving certificate comes from. Without any of these, it is made at start.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Serving certificate")]
struct CertificateOptions {
    /// Certificate chain as PEM, reloaded when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "REACH_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// Private key as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "REACH_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Secret of type kubernetes.io/tls, followed through the API (tls.crt, tls.key and, for caBundle, ca.crt)
    #[arg(
        long,
        value_name = "NAME",
        requires = "service",
        conflicts_with = "tls_cert",
        env = "REACH_TLS_SECRET"
    )]
    tls_secret: Option<String>,
    /// Secret for a CA of reach's own, made when it is missing; certificates are renewed and the CA rotated without anybody's help
    #[arg(
        long,
        value_name = "NAME",
        requires = "service",
        conflicts_with_all = ["tls_cert", "tls_secret"],
        env = "REACH_CA_SECRET"
    )]
    ca_secret: Option<String>,
    /// Life of that CA
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = lifetime, env = "REACH_CA_LIFETIME")]
    ca_lifetime: Duration,
    /// Life of the certificates it signs
    #[arg(long, value_name = "DURATION", default_value = "168h", value_parser = lifetime, env = "REACH_LEAF_LIFETIME")]
    leaf_lifetime: Duration,
    /// Time that API servers get to learn a CA before something is served that needs it
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration, env = "REACH_CA_PROPAGATION")]
    ca_propagation: Duration,
    /// Lease for the rotation of the CA [default: the name of its Secret]
    #[arg(long, value_name = "NAME", requires = "ca_secret", env = "REACH_LEASE")]
    lease: Option<String>,
    /// DNS names and IP addresses of a certificate that is made [default: SERVICE.NAMESPACE.svc, or localhost and the address of --listen]
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        conflicts_with_all = ["tls_cert", "tls_secret"],
        env = "REACH_TLS_NAMES"
    )]
    tls_names: Vec<String>,
    /// Where to write the CA of the certificate that is made at start
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tls_cert", "tls_secret", "ca_secret"], env = "REACH_CA_OUT")]
    ca_out: Option<PathBuf>,
}

/// How API servers find reach.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Registration")]
struct RegistrationOptions {
    /// Namespace that reach runs in [default: that of the service account, or of the current context]
    #[arg(long, value_name = "NAMESPACE", env = "REACH_NAMESPACE")]
    namespace: Option<String>,
    /// Service that API servers call
    #[arg(long, value_name = "NAME", env = "REACH_SERVICE")]
    service: Option<String>,
    /// MutatingWebhookConfiguration whose caBundle is kept right; reach is not ready before that vouches for its certificate
    #[arg(long, value_name = "NAME", requires = "service", env = "REACH_WEBHOOK_CONFIGURATION")]
    webhook_configuration: Option<String>,
    /// Who writes caBundle
    #[arg(
        long,
        value_name = "WHO",
        default_value = "keep",
        requires = "webhook_configuration",
        env = "REACH_CA_BUNDLE"
    )]
    ca_bundle: CaBundle,
}

/// What makes certificates trusted, once it runs.
struct Serving {
    resolver: Arc<CertResolver>,
    trust: Option<Trust>,
    /// The CA to trust, when it was made for this run only.
    ca: Option<String>,
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
    let Serving { resolver, trust, ca } = serving_certificate(&arguments, &mut registry).await?;
    let clients = match &arguments.client_ca {
        Some(file) => {
            let clients = ClientVerifier::new(file, arguments.client_names.clone()).context("--client-ca")?;
            tokio::spawn(Arc::clone(&clients).follow(files::RELOAD_EVERY));
            Some(clients)
        }
        None => None,
    };

    let limits = Limits { drain: Duration::from_secs(arguments.drain), ..Limits::default() };
    let (of_webhook, of_admin) = connections_for(open_files());
    let connections = |registry: &mut Registry, listener: &'static str| {
        ConnectionMetrics::register(registry.sub_registry_with_label(("listener".into(), listener.into())))
    };
    let of_webhook = Limits { connections: of_webhook, ..limits.clone() };
    let webhook = Server::new(of_webhook, connections(&mut registry, "webhook"))
        .with_tls(certs::server_config(Arc::clone(&resolver), clients)?)
        .bind(arguments.listen)
        .with_context(|| "--listen")?;
    let of_admin = admin_limits(&limits, of_admin);
    let admin = Server::new(of_admin, connections(&mut registry, "admin"))
        .bind(arguments.admin_listen)
        .with_context(|| "--admin-listen")?;

    let hooks = arguments.cluster_api_hooks.then(|| Hooks::new(Arc::clone(&presets)));
    let admission = Admission::new(Arc::clone(&presets), ReviewMetrics::register(&mut registry));
    let admission = admission.service();
    let status =
        TowerToHyperService::new(Admin::new(presets, resolver, trust, drain.clone(), registry).router());

    announce(&arguments, &webhook, &admin, ca.as_deref())?;
    let now = stop_signals(drain.clone())?;
    let webhook = match hooks {
        Some(hooks) => Either::Left(webhook.serve(hooks.in_front_of(admission), drain.clone())),
        None => Either::Right(webhook.serve(admission, drain.clone())),
    };
    let served = async { tokio::join!(webhook, admin.serve(status, drain.clone())) };
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
        let config = arguments.cluster.config().await?;
        let namespace =
            arguments.registration.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = api_server::client(config)?;
        let sources = Sources { watched: arguments.no_proxy_from.clone(), given: arguments.network.facts() };
        let notes = arguments.status_lease.clone().map(|name| {
            let lease = Lease::new(&client, &namespace, name, replica());
            let (writer, notes) = status::Writer::new(client.clone(), lease);
            tokio::spawn(writer.run());
            notes
        });
        tokio::spawn(cluster::watch(client, Arc::clone(presets), sources, metrics.clone(), notes));
    } else {
        // Before they are read: what changes meanwhile shows at the next look.
        let seen = directory::fingerprint(&arguments.presets);
        let loaded = directory::load(&arguments.presets)
            .map_err(|errors| Failure::Messages(errors.iter().map(ToString::to_string).collect()))?;
        let given = arguments.network.facts();
        let loaded = loaded.with_given(given.clone());
        let said = directory::publish(&loaded, presets, metrics, &Accounts::default());
        let (paths, presets) = (arguments.presets.clone(), Arc::clone(presets));
        tokio::spawn(directory::watch(paths, seen, given, presets, metrics.clone(), said));
    }
    Ok(())
}

/// Starts what provides the serving certificate and what makes API servers trust it.
async fn serving_certificate(arguments: &Arguments, registry: &mut Registry) -> Result<Serving, Failure> {
    let metrics = CertMetrics::register(registry);
    let CertificateOptions { tls_cert, tls_key, tls_secret, ca_secret, .. } = &arguments.certificate;
    let in_cluster =
        tls_secret.is_some() || ca_secret.is_some() || arguments.registration.webhook_configuration.is_some();
    if !in_cluster {
        if let (Some(certificate), Some(key)) = (tls_cert, tls_key) {
            let (resolver, reloader) = files::from_files(certificate, key)?;
            tokio::spawn(reloader.run(files::RELOAD_EVERY, metrics, None));
            return Ok(Serving { resolver, trust: None, ca: None });
        }
        return self_made(arguments, &metrics);
    }
    let config = arguments.cluster.config().await?;
    let options = &arguments.registration;
    let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let service = options.service.clone().unwrap_or_default();
    let client = api_server::client(config)?;
    let dns_name = format!("{service}.{namespace}.svc");
    let server_name = ServerName::try_from(dns_name.clone())
        .with_context(|| format!("--service {service}, --namespace {namespace}: no DNS name"))?;

    let (live, seen) = watch::channel(Live::default());
    let trust = options.webhook_configuration.as_ref().map(|configuration| {
        Trust::new(seen, configuration, server_name.clone(), arguments.certificate.ca_propagation)
    });
    let mut resolver = Arc::new(CertResolver::default());
    let needed = if let Some(secret) = ca_secret {
        let mut names = arguments.certificate.tls_names.clone();
        if names.is_empty() {
            names = vec![dns_name.clone(), format!("{dns_name}.cluster.local")];
        }
        let settings = managed::Settings {
            namespace: namespace.clone(),
            secret: secret.clone(),
            names,
            ca_lifetime: arguments.certificate.ca_lifetime,
            leaf_lifetime: arguments.certificate.leaf_lifetime,
        };
        let lease = arguments.certificate.lease.clone().unwrap_or_else(|| secret.clone());
        let lease = Lease::new(&client, &namespace, lease, replica());
        let (manager, needed) =
            managed::Manager::new(&client, settings, lease, Arc::clone(&resolver), metrics);
        tokio::spawn(manager.run(trust.clone()));
        needed
    } else if let Some(name) = tls_secret {
        let (follower, needed) = secret::Follower::new(
            client.clone(),
            &namespace,
            name.clone(),
            server_name,
            Arc::clone(&resolver),
            metrics,
        );
        tokio::spawn(follower.run(trust.clone()));
        needed
    } else if let (Some(certificate), Some(key)) = (tls_cert, tls_key) {
        let (own, reloader) = files::from_files(certificate, key)?;
        let needed = reloader.authorities();
        tokio::spawn(reloader.run(files::RELOAD_EVERY, metrics, trust.clone()));
        resolver = own;
        needed
    } else {
        return Err(Failure::from(anyhow::anyhow!(
            "--webhook-configuration: expected a certificate that lasts: add --ca-secret, --tls-secret or --tls-cert"
        )));
    };
    if let (Some(configuration), Some(trust)) = (&options.webhook_configuration, &trust) {
        let registration =
            Registration { configuration: configuration.clone(), service: (namespace, service) };
        let metrics = RegistrationMetrics::register(registry);
        let keeper = Keeper::new(client, registration, options.ca_bundle, needed, live, metrics);
        tokio::spawn(keeper.run(Arc::clone(&resolver), trust.clone()));
    }
    Ok(Serving { resolver, trust, ca: None })
}

/// A certificate and its CA for this run only.
fn self_made(arguments: &Arguments, metrics: &CertMetrics) -> Result<Serving, Failure> {
    let mut names = arguments.certificate.tls_names.clone();
    if names.is_empty() {
        names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let own = arguments.listen.ip();
        if !own.is_loopback() && !own.is_unspecified() {
            names.push(own.to_string());
        }
    }
    let made = certs::self_made(&names)?;
    if let Some(served) = made.resolver.current() {
        metrics.serves(&served);
    }
    if let Some(file) = &arguments.certificate.ca_out {
        super::write_whole(file, &made.ca_pem)
            .with_context(|| format!("--ca-out: cannot write {}", file.display()))?;
    }
    Ok(Serving { resolver: made.resolver, trust: None, ca: Some(made.ca_pem) })
}

/// A name for this process that no other replica has, also when it has been restarted.
fn replica() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "reach".to_owned());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{host}_{}_{:x}", std::process::id(), now.as_nanos())
}

/// A duration as Go writes it: `168h`, `1h30m`, `90s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write for instance 30s, 5m or 168h");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = &rest[digits..];
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let millis = match &after[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(millis).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(wrong)?;
        rest = &after[unit..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// A duration that a certificate can live.
fn lifetime(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_secs(10);
    const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);
    let lifetime = duration(text)?;
    if (SHORTEST..=LONGEST).contains(&lifetime) {
        Ok(lifetime)
    } else {
        Err(format!("{text} is no life for a certificate: write a duration from 10s to 876000h"))
    }
}

/// How many files may be open: as many as the system lets us have. What a container begins with is often 1,024, for the sake
/// of programs that use `select`.
fn open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current }
}

/// Connections to the webhook and to the admin port, so that files never run out: it is better to choose whose connection to
/// close than to be unable to accept one.
fn connections_for(files: Option<u64>) -> (usize, usize) {
    let most = Limits::default().connections;
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    let free = files.saturating_sub(OWN_FILES);
    let admin = (free / 4).clamp(1, ADMIN_CONNECTIONS);
    (free.saturating_sub(admin).clamp(1, most), admin)
}

/// Files of the process itself: its log, its runtime, its connections to the API server, a connection to each listener that
/// is accepted to be closed.
const OWN_FILES: usize = 24;

/// Connections to the admin port: those of a kubelet and of whoever collects metrics.
const ADMIN_CONNECTIONS: usize = 64;

/// Both ask as soon as they are connected, so that who does not may go. A kubelet closes its connection after that. Prometheus
/// keeps it, and connects again when it was closed: after less than the usual intervals between two scrapes, so that a scrape
/// does not come in just that moment.
fn admin_limits(limits: &Limits, connections: usize) -> Limits {
    Limits {
        connections,
        unused_give_way: true,
        first_byte: Duration::from_secs(5),
        idle: Duration::from_secs(3),
        ..limits.clone()
    }
}

/// Says where it listens and, to a person, how to try it.
fn announce(arguments: &Arguments, webhook: &Bound, admin: &Bound, ca: Option<&str>) -> Result<(), Failure> {
    let mut text = format!(
        "webhook  https://{}{PATH}\nadmin    http://{}  (/livez, /readyz, /metrics)\n",
        webhook.address(),
        admin.address()
    );
    if arguments.cluster_api_hooks {
        let _ = writeln!(text, "hooks    https://{}/{API_VERSION}", webhook.address());
    }
    if io::stdout().is_terminal() {
        let trust = match (&arguments.certificate.ca_out, ca) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_process_itself() {
        assert_eq!(connections_for(None), (1024, 64));
        assert_eq!(connections_for(Some(1_048_576)), (1024, 64));
        assert_eq!(connections_for(Some(1024)), (936, 64));
        assert_eq!(connections_for(Some(64)), (30, 10));
        assert_eq!(connections_for(Some(0)), (1, 1));
    }
}
