//! A small HTTP/1.1 client that sends exactly the bytes it is given, with or without TLS.
//!
//! Tests of what a server does with requests that no decent client sends need one; it is blocking and takes one
//! request a connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use super::PATIENCE;
use super::pki::Pair;

/// The name that serving certificates of tests are for.
pub const NAME: &str = "localhost";

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status, such as 200.
    pub status: u16,
    /// Status line and header fields.
    pub head: String,
    /// The body.
    pub body: String,
}

/// A connection on which one request can be sent.
pub trait Connection: Read + Write {}

impl<T: Read + Write> Connection for T {}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

/// Opens a connection without TLS.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Opens a connection with TLS that trusts one CA and offers one protocol (`http/1.1`, `h2`).
pub fn connect_tls(
    address: SocketAddr,
    ca_pem: &str,
    protocol: &str,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("PEM");
    handshake(address, NAME, &[ca], protocol, None)
}

/// Opens a connection with TLS to a server that has to have this name from one of these CAs. The client has a certificate
/// with its key or none.
pub fn handshake(
    address: SocketAddr,
    name: &str,
    cas: &[CertificateDer<'static>],
    protocol: &str,
    identity: Option<&Pair>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut stream = connect(address)?;
    let name = ServerName::try_from(name.to_owned()).expect("a DNS name");
    let config = client_config(cas, protocol, identity)?;
    let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

fn client_config(
    cas: &[CertificateDer<'static>],
    protocol: &str,
    identity: Option<&Pair>,
) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone()).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Pair { certificate, key }) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Ok(Arc::new(config))
}

/// Sends a request and reads its reply.
///
/// That not all of the request can be sent is no error: a server may refuse it before it has all of it.
pub fn exchange(mut connection: impl Connection, request: &[u8]) -> io::Result<Reply> {
    let _ = connection.write_all(request).and_then(|()| connection.flush());
    read_reply(&mut connection)
}

/// Reads one reply.
pub fn read_reply(connection: &mut impl Connection) -> io::Result<Reply> {
    let mut received = Vec::new();
    let end = loop {
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        receive(connection, &mut received)?;
    };
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let length: usize = length.unwrap_or_default();
    while received.len() < end + length {
        receive(connection, &mut received)?;
    }
    Ok(Reply {
        status: status.ok_or_else(|| io::Error::other(format!("no status: {head}")))?,
        head,
        body: String::from_utf8_lossy(&received[end..end + length]).into_owned(),
    })
}

fn receive(connection: &mut impl Connection, received: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    match connection.read(&mut buffer)? {
        0 => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("closed after {:?}", String::from_utf8_lossy(received)),
        )),
        read => {
            received.extend_from_slice(&buffer[..read]);
            Ok(())
        }
    }
}

/// A request with a body of JSON.
pub fn post(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    request("POST", path, "content-type: application/json\r\n", body)
}

/// A request; `fields` are more header fields, each with its line break.
pub fn request(method: &str, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: {NAME}\r\n{fields}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
