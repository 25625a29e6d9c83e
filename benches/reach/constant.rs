//! The server that reach is compared with: the same listener, TLS and HTTP, and a handler that reads the
//! body and answers the same bytes each time. It is a child process of the bench, which starts itself.

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::path::Path;
use std::thread;

use axum::Router;
use axum::http::header;
use axum::routing::post;
use bytes::Bytes;
use hyper_util::service::TowerToHyperService;
use reach::admission::PATH;
use reach::certs;
use reach::server::{ConnectionMetrics, Drain, Limits, Server};

/// The argument that makes this program that server; the CA file and the length of answers follow.
pub const COMMAND: &str = "--constant-server";

/// Serves until standard input ends.
///
/// # Panics
/// If it cannot serve.
pub fn serve(ca: &Path, length: usize) {
    // So that it ends with the bench, however that ends.
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    // The runtime of `reach serve`.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let made = certs::self_made(&["localhost".to_owned()]).expect("a certificate");
        std::fs::write(ca, &made.ca_pem).expect("a new file");
        let bound = Server::new(Limits::default(), ConnectionMetrics::default())
            .with_tls(certs::server_config(made.resolver, None).expect("a configuration"))
            .bind("127.0.0.1:0".parse().expect("an address"))
            .await
            .expect("a free port");
        let answer = Bytes::from(vec![b'x'; length]);
        let handler = post(async move |_body: Bytes| {
            Ok::<_, Infallible>(([(header::CONTENT_TYPE, "application/json")], answer.clone()))
        });
        println!("https://{}/", bound.address());
        bound.serve(TowerToHyperService::new(Router::new().route(PATH, handler)), Drain::default()).await;
    });
}
