//! The server that reach is compared with: the same listener, TLS and HTTP, and a handler that reads the
//! body and answers the same bytes each time. It is a child process of the bench, which starts itself.

use std::convert::Infallible;
use std::fs;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use reach::certs;
use reach::server::{ConnectionMetrics, Drain, Limits, RequestBody, Server};

use super::process::Process;

/// The argument that makes this program that server; [`Options`] follow.
pub const COMMAND: &str = "--constant-server";

/// What it takes, each an argument.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The file to which its CA is written.
    pub ca: &'a Path,
    /// The file with what it answers.
    pub answer: &'a Path,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The name in its certificate.
    pub name: &'a str,
    /// Whether each answer has the uid of its review in the place of the one that is there: an API server takes no other.
    pub echo: bool,
}

/// Starts it; returns where it listens.
///
/// # Errors
/// When it cannot serve.
pub fn start(options: Options<'_>) -> io::Result<(Process, SocketAddr)> {
    let Options { ca, answer, listen, name, echo } = options;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(COMMAND).args([ca, answer]).args([&listen.to_string(), name, &echo.to_string()]);
    let process = Process::start(&mut command);
    let address = process.address("https://", '/').ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((process, address))
}

/// Serves until standard input ends.
///
/// # Panics
/// If it cannot serve.
pub fn serve(arguments: &[String]) {
    let [ca, answer, listen, name, echo] = arguments else {
        panic!("{COMMAND}: expected five arguments: {arguments:?}");
    };
    let answer = Bytes::from(fs::read(answer).expect("an answer"));
    let uid = (echo == "true").then(|| uid(&answer).expect("an answer has a uid"));
    // So that it ends with the bench, however that ends.
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    // The runtime of `reach serve`.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let made = certs::self_made(std::slice::from_ref(name)).expect("a certificate");
        fs::write(ca, &made.ca_pem).expect("a new file");
        let bound = Server::new(Limits::default(), ConnectionMetrics::default())
            .with_tls(certs::server_config(made.resolver, None).expect("a configuration"))
            .bind(listen.parse().expect("an address"))
            .expect("a free port");
        let service = service_fn(move |request: Request<RequestBody>| {
            let (answer, uid) = (answer.clone(), uid.clone());
            async move {
                let Ok(body) = request.into_body().collect().await else {
                    let mut refusal = Response::new(Full::default());
                    *refusal.status_mut() = StatusCode::BAD_REQUEST;
                    return Ok::<_, Infallible>(refusal);
                };
                let answer = match uid {
                    None => answer,
                    Some(place) => {
                        let mut answer = answer.to_vec();
                        let body = body.to_bytes();
                        let asked = self::uid(&body).expect("a review has a uid");
                        answer.splice(place, body[asked].iter().copied());
                        answer.into()
                    }
                };
                let mut response = Response::new(Full::new(answer));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok(response)
            }
        });
        println!("https://{}/", bound.address());
        bound.serve(service, Drain::default()).await;
    });
}

/// Where the value of the first `uid` is, which in reviews and answers is theirs.
fn uid(json: &[u8]) -> Option<std::ops::Range<usize>> {
    const NAME: &[u8] = br#""uid":""#;
    let start = json.windows(NAME.len()).position(|bytes| bytes == NAME)? + NAME.len();
    let length = json[start..].iter().position(|&byte| byte == b'"')?;
    Some(start..start + length)
}
