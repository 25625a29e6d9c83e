//! `reach check`: asks the webhook as an API server would.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use kube::Api;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Failure;
use super::input::ClusterOptions;

/// What an API server waits for, unless the configuration says less.
const PATIENCE: Duration = Duration::from_secs(10);

/// Call the webhook as an API server would, from inside the cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads the MutatingWebhookConfiguration, connects to the Service it names, trusts what its caBundle trusts, and sends
a review of a small pod in the namespace `default`. Nothing is created. Run it in a pod: only there a Service has an
address. `helm test` does.

Examples:
  reach check --webhook-configuration reach")]
pub struct Arguments {
    /// The MutatingWebhookConfiguration
    #[arg(long, value_name = "NAME", default_value = "reach", env = "REACH_WEBHOOK_CONFIGURATION")]
    webhook_configuration: String,
    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (report, failures) = runtime.block_on(check(arguments))?;
    super::print(&report)?;
    if failures.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Failure::Messages(failures)) }
}

async fn check(arguments: &Arguments) -> Result<(String, Vec<String>), Failure> {
    let name = &arguments.webhook_configuration;
    let client = kube::Client::try_from(arguments.cluster.config().await?)?;
    let api: Api<MutatingWebhookConfiguration> = Api::all(client);
    let configuration = api
        .get_opt(name)
        .await
        .with_context(|| format!("cannot read MutatingWebhookConfiguration {name}"))?
        .ok_or_else(|| {
            anyhow!("MutatingWebhookConfiguration {name} does not exist: install reach, or give its name")
        })?;
    let webhooks = configuration.webhooks.unwrap_or_default();
    if webhooks.is_empty() {
        return Err(
            anyhow!("MutatingWebhookConfiguration {name} has no webhooks: install reach again").into()
        );
    }
    let (mut report, mut failures) = (String::new(), Vec::new());
    for webhook in &webhooks {
        let patience = patience(webhook);
        let call = timeout(patience, call(webhook));
        match call.await.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", patience.as_secs()))) {
            Ok(answer) => {
                let policy = webhook.failure_policy.as_deref().unwrap_or("Fail");
                let _ = writeln!(report, "ok  {}: {answer} (failurePolicy {policy})", webhook.name);
            }
            Err(error) => failures.push(format!("{}: {error:#}", webhook.name)),
        }
    }
    Ok((report, failures))
}

fn patience(webhook: &MutatingWebhook) -> Duration {
    let said = webhook.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    said.map_or(PATIENCE, Duration::from_secs).min(PATIENCE)
}

/// Sends a review to a webhook and says what it answered.
async fn call(webhook: &MutatingWebhook) -> anyhow::Result<String> {
    let Some(service) = &webhook.client_config.service else {
        bail!("clientConfig has no service: reach is called at a Service");
    };
    let mut roots = RootCertStore::empty();
    if let Some(ByteString(bundle)) = &webhook.client_config.ca_bundle {
        for certificate in CertificateDer::pem_slice_iter(bundle) {
            let certificate = certificate
                .map_err(|error| anyhow!("caBundle is not PEM: {}", crate::certs::pem_trouble(&error)))?;
            roots.add(certificate).context("caBundle has a certificate that is no CA")?;
        }
    }
    if roots.is_empty() {
        if webhook.client_config.ca_bundle.as_ref().is_some_and(|bundle| !bundle.0.is_empty()) {
            bail!("caBundle has no certificate in it: let reach or whoever else is to write it do so again");
        }
        bail!("caBundle is empty: is reach ready? it writes it; see its log and /readyz");
    }
    let host = format!("{}.{}.svc", service.name, service.namespace);
    let port = u16::try_from(service.port.unwrap_or(443)).context("service.port is no port")?;
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .with_context(|| format!("cannot connect to {host}:{port}"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server_name = ServerName::try_from(host.clone())?;
    let asks = "asks clients for a certificate, as with --client-ca; no review sent".to_owned();
    let stream = match TlsConnector::from(Arc::new(config)).connect(server_name, stream).await {
        Ok(stream) => stream,
        Err(error) if is_refusal(&error) => return Ok(asks),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("caBundle does not vouch for the certificate of {host}"));
        }
    };
    let path = service.path.as_deref().unwrap_or("/");
    let uid = "7d1f3f9e-reach-check";
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": uid, "operation": "CREATE", "namespace": "default", "dryRun": true,
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reach-check", "namespace": "default"},
                "spec": {"containers": [{"name": "check", "image": "check"}]},
            },
        },
    });
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, &host)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))?;
    // Under TLS 1.3 a server refuses a client's missing certificate after the client has begun to talk.
    // The exchange owns the sender: the connection ends with that, and would else be kept for another request.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
    };
    let (status, body) = match tokio::join!(exchange, connection) {
        (Ok(answer), _) => answer,
        (Err(error), connection) => {
            if is_refusal(&error) || connection.is_err_and(|error| is_refusal(&error)) {
                return Ok(asks);
            }
            return Err(error).context("the webhook did not answer");
        }
    };
    if status != StatusCode::OK {
        bail!("the webhook answered {status}: {}", String::from_utf8_lossy(&body).trim());
    }
    let answer: Value = serde_json::from_slice(&body).context("the answer is no JSON")?;
    let response = &answer["response"];
    if response["uid"] != uid || response["allowed"] != true {
        bail!("the answer is not for the review, or refuses the pod");
    }
    Ok(if response["patch"].is_null() {
        format!("{host}:{port} answers; no preset selects a plain pod in `default`")
    } else {
        format!("{host}:{port} answers, and injects into a plain pod in `default`")
    })
}

/// Whether a TLS server ended the connection for want of a certificate of ours.
fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An I/O error hides what it wraps from `source`.
        let inner = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        let tls = inner.and_then(|error| error.downcast_ref()).or_else(|| error.downcast_ref());
        if matches!(tls, Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired))) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_gets_as_long_as_an_api_server_gives_it_and_10_seconds_at_most() {
        for (said, seconds) in [(None, 10), (Some(1), 1), (Some(5), 5), (Some(30), 10)] {
            let webhook = MutatingWebhook { timeout_seconds: said, ..MutatingWebhook::default() };
            assert_eq!(patience(&webhook), Duration::from_secs(seconds), "{said:?}");
        }
    }
}
