//! Speaking with the API server: how it is connected to, how its errors read, and how long to wait before asking again.

use std::error::Error;
use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;

/// Longest time between two attempts. With the 30 s of the default, a replica that was started while the API server was
/// away would stay unready for as long after it is back.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long a connection may be silent before the other end is asked whether it is still there, how long it may take to answer,
/// and how often it is asked.
const SILENCE: Duration = Duration::from_secs(15);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const QUESTIONS: u32 = 3;

/// How long an answer may be silent although the other end is there. A watch may be for 295 s: it is asked for for 290 s, and
/// given up by kube-runtime 5 s later. That does not cover a list, nor the time until an answer begins, so that an API server
/// that takes the request and nothing more would be waited for for ever.
const SILENT_ANSWER: Duration = Duration::from_mins(5);

/// A client for what is watched for long. A watch has nothing to send, so it would not notice for minutes that the API server at
/// its other end has gone without a word, and presets would be old for as long. The kernel asks, and counts what it sends
/// itself, too; kube's own client does not have it do so. Where the kernel of the other end answers and the API server does
/// not, [`SILENT_ANSWER`] ends it.
///
/// It does not wait where an API server asks for patience (429 with `Retry-After`), and says nothing meanwhile, either: whoever
/// asks goes on asking, and tells why.
pub(crate) fn client(config: kube::Config) -> kube::Result<kube::Client> {
    client_that_waits(config, SILENT_ANSWER)
}

/// [`client`], to which an answer may be silent for this long.
fn client_that_waits(mut config: kube::Config, silent: Duration) -> kube::Result<kube::Client> {
    config.default_retry = false;
    config.read_timeout.get_or_insert(silent);
    // The time in which a connection rests between two requests does not count.
    config.reset_reader_on_write = true;
    if config.proxy_url.is_some() {
        // The other end is the proxy.
        return kube::Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_keepalive(Some(SILENCE));
    tcp.set_keepalive_interval(Some(ANSWER_WITHIN));
    tcp.set_keepalive_retries(Some(QUESTIONS));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(SILENCE + QUESTIONS * ANSWER_WITHIN));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
    let service = tower::ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// The waits between attempts to watch: those of client-go, but no longer than [`LONGEST_WAIT`].
#[derive(Default)]
pub(crate) struct Waits(DefaultBackoff);

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(LONGEST_WAIT))
    }
}

impl Backoff for Waits {
    /// Every attempt to list begins with an event that is no error, so this is called between failures, too. The wait is
    /// reset by time instead: after two minutes without a failure.
    fn reset(&mut self) {}
}

/// The message of an error with its causes, each once. What an API server says speaks for itself.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let status = error.downcast_ref().and_then(|error| match error {
            kube::Error::Api(status) if !status.message.is_empty() => Some(status),
            _ => None,
        });
        if let Some(status) = status {
            // Those around it show all of it, fields and all.
            return format!("the API server says: {} (code {})", status.message, status.code);
        }
        let message = error.to_string();
        if text.is_empty() {
            text = message;
        } else if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_api_server_that_says_nothing_is_asked_whether_it_is_there() {
        use tokio::io::AsyncReadExt as _;

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = client(kube::Config::new(url.parse().unwrap())).unwrap();
        let watch = tokio::spawn(async move { client.apiserver_version().await.is_ok() });
        let (mut server, peer) = listener.accept().await.unwrap();
        // The request is here, so there is nothing on its way, and nothing comes back.
        assert!(server.read_u8().await.is_ok());
        let local = format!(":{:04X}", peer.port());
        let is_asked = || {
            let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let ours = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            // The timer of the socket: 02 is keepalive.
            ours.filter(|socket| socket[1].ends_with(&local)).any(|socket| socket[5].starts_with("02:"))
        };
        for _ in 0..1000 {
            if is_asked() {
                watch.abort();
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the socket has no keepalive");
    }

    #[tokio::test]
    async fn an_api_server_that_takes_a_request_and_never_answers_is_not_waited_for_for_ever() {
        use k8s_openapi::api::core::v1::Namespace;
        use kube::api::{Api, ListParams, WatchParams};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                silent.push(connection);
            }
        });
        let config = kube::Config::new(url.parse().unwrap());
        let client = client_that_waits(config, Duration::from_millis(100)).unwrap();
        let namespaces: Api<Namespace> = Api::all(client);
        let asked = async {
            assert!(namespaces.watch(&WatchParams::default(), "0").await.is_err());
            assert!(namespaces.list(&ListParams::default()).await.is_err());
        };
        tokio::time::timeout(Duration::from_mins(1), asked).await.expect("it ends");
        server.abort();
    }

    #[test]
    fn a_watch_may_be_silent_for_as_long_as_kube_waits_for_it() {
        assert!(SILENT_ANSWER > Duration::from_secs(290 + 5));
    }

    #[tokio::test]
    async fn an_api_server_that_asks_for_patience_is_heard() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = client(kube::Config::new(url.parse().unwrap())).unwrap();
        tokio::spawn(async move {
            let (mut server, _) = listener.accept().await.unwrap();
            assert!(server.read(&mut [0; 4096]).await.is_ok());
            let body =
                r#"{"kind":"Status","status":"Failure","message":"storage is initializing","code":429}"#;
            let head = format!("retry-after: 3600\r\ncontent-length: {}", body.len());
            let reply = format!("HTTP/1.1 429 Too Many Requests\r\n{head}\r\n\r\n{body}");
            server.write_all(reply.as_bytes()).await.unwrap();
        });
        let error = client.apiserver_version().await.unwrap_err();
        assert_eq!(explain(&error), "the API server says: storage is initializing (code 429)");
    }

    #[test]
    fn waits_grow_although_each_attempt_begins_without_an_error() {
        let mut waits = Waits::default();
        let mut last = Duration::ZERO;
        for _ in 0..6 {
            last = waits.next().expect("it never gives up");
            assert!(last <= LONGEST_WAIT);
            waits.reset();
        }
        assert_eq!(last, LONGEST_WAIT);
    }
}
