//! Reviews per second of processor time, over TLS and connections that are kept: reach and a server that
//! does nothing, under the same load in turns.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use futures::future::try_join_all;
use reach::admission::PATH;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::process::{PATIENCE, Process, Reach, folder};
use super::report::{Row, median};
use super::{constant, fixture};

/// How often both servers are started: which of its threads serves which connection is settled early in
/// the life of a process, and makes a difference that stays: with three starts, one run in five was a tenth off.
const STARTS: usize = 12;
/// Rounds after each start; in each, both servers take turns. Many short ones: on a shared machine the
/// same work costs half as much again from one second to the next, and so both sides see the same of it.
const ROUNDS: usize = 15;
/// Rounds before those, which do not count.
const WARM_UP: usize = 5;
/// Connections that are kept open to each server. An API server keeps a few to a webhook: a server then sleeps between
/// reviews, and to wake up is much of what it does. Of many at the same time, the next review is there when one is answered.
const CONNECTIONS: [usize; 2] = [4, 64];
/// Reviews in one round, of all connections.
const REVIEWS: usize = 1024;

/// Connections to one server.
pub struct Client(Vec<TlsStream<TcpStream>>);

/// Both servers under load.
pub fn measure() -> Vec<Row> {
    // One thread: the server is to have the other processor.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let compare = |connections| runtime.block_on(compare(connections)).expect("requests are answered");
    CONNECTIONS.into_iter().flat_map(compare).collect()
}

async fn compare(connections: usize) -> io::Result<Vec<Row>> {
    let review = fixture::bytes(&fixture::review());
    let request = request(&review);

    let folder = folder();
    let presets = folder.path().join("presets.json");
    let items: Vec<_> = fixture::proxy().into_iter().chain([fixture::shop()]).collect();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
    std::fs::write(&presets, list.to_string())?;
    let (ca, constant_answer) = (folder.path().join("ca.pem"), folder.path().join("answer"));
    let (mut of_reach, mut of_constant) = (Vec::new(), Vec::new());
    let mut answer = 0;
    for _ in 0..STARTS {
        let reach = Reach::start(["--presets".as_ref(), presets.as_os_str()]);
        reach.await_ready();
        let mut to_reach = Client::connect(connections, reach.webhook, &reach.ca()).await?;
        answer = exchange(&mut to_reach.0[0], &request, &mut Vec::new()).await?;

        std::fs::write(&constant_answer, vec![b'x'; answer])?;
        let (constant, address) = constant::start(constant::Options {
            ca: &ca,
            answer: &constant_answer,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            name: "localhost",
            echo: false,
        })?;
        let mut to_constant = Client::connect(connections, address, &ca).await?;

        for round in 0..WARM_UP + ROUNDS {
            let rates = (
                to_reach.round(&request, &reach.process).await?,
                to_constant.round(&request, &constant).await?,
            );
            if round >= WARM_UP {
                of_reach.push(rates.0);
                of_constant.push(rates.1);
            }
        }
    }
    let (of_reach, of_constant) = (median(of_reach), median(of_constant));
    Ok(vec![
        Row::new(
            format!(
                "load: reviews per CPU second, {connections} connections ({} B, answer {answer} B)",
                review.len()
            ),
            of_reach,
            "/s",
        ),
        Row::new(format!("load: constant answer, {connections} connections"), of_constant, "/s"),
        Row::new(
            format!("load: reach / constant answer, {connections} connections"),
            of_reach / of_constant,
            "",
        )
        .at_least(0.8),
    ])
}

/// A review as an API server sends it.
pub fn request(review: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {PATH}?timeout=10s HTTP/1.1\r\nhost: localhost\r\nuser-agent: kube-apiserver-admission\r\n\
         content-length: {}\r\naccept: application/json, */*\r\ncontent-type: application/json\r\n\
         accept-encoding: gzip\r\n\r\n",
        review.len()
    );
    [head.as_bytes(), review].concat()
}

impl Client {
    /// Opens its connections.
    ///
    /// # Errors
    /// If the server cannot be reached, or is not the one that this CA vouches for.
    pub async fn connect(connections: usize, address: SocketAddr, ca: &Path) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(ca).map_err(io::Error::other)?;
        roots.add(ca).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let connect = async || {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            connector.connect(ServerName::try_from("localhost").expect("a name"), stream).await
        };
        Ok(Self(try_join_all((0..connections).map(|_| connect())).await?))
    }

    /// Sends a review; returns its answer.
    ///
    /// # Errors
    /// If it is not answered.
    pub async fn answer(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::new();
        let length = exchange(&mut self.0[0], request, &mut buffer).await?;
        Ok(buffer.split_off(buffer.len() - length))
    }

    /// Sends a review; returns the patch that it is answered with.
    ///
    /// # Errors
    /// If it is not answered, or without a patch.
    pub async fn patch(&mut self, request: &[u8]) -> io::Result<String> {
        let answer: serde_json::Value = serde_json::from_slice(&self.answer(request).await?)?;
        let patch = answer["response"]["patch"].as_str().ok_or_else(|| io::Error::other("no patch"))?;
        let patch = base64_simd::STANDARD.decode_to_vec(patch).map_err(io::Error::other)?;
        String::from_utf8(patch).map_err(io::Error::other)
    }

    /// Sends a round of reviews; returns how many a second of the server's processor time answers.
    async fn round(&mut self, request: &[u8], server: &Process) -> io::Result<f64> {
        let before = server.cpu_nanos();
        let each = REVIEWS / self.0.len();
        let connections = self.0.iter_mut().map(async |stream| {
            let mut buffer = Vec::with_capacity(16 * 1024);
            for _ in 0..each {
                exchange(stream, request, &mut buffer).await?;
            }
            Ok::<_, io::Error>(())
        });
        tokio::time::timeout(PATIENCE, try_join_all(connections)).await??;
        let nanos = server.cpu_nanos().saturating_sub(before);
        Ok(REVIEWS as f64 * 1e9 / nanos as f64)
    }
}

/// Sends a request and reads its answer; returns the length of the body.
async fn exchange(
    stream: &mut TlsStream<TcpStream>,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> io::Result<usize> {
    stream.write_all(request).await?;
    stream.flush().await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(length) = complete(buffer)? {
            return Ok(length);
        }
    }
}

/// The length of the body, once all of it is there.
fn complete(answer: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(head));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let length = length.ok_or_else(|| io::Error::other("an answer without its length"))?;
    Ok((answer.len() == end + 4 + length).then_some(length))
}
