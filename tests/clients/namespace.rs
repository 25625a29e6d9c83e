//! A network namespace in which every address is this machine, with name service, origins that answer `D` and proxies
//! that answer `P`.
//!
//! Nothing gets in or out of it. One client at a time lives in it, so whoever was connected to last says what it did.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::case::{ELSEWHERE, NAMES, PROXY_PORTS, Verdict};
use super::program::Program;

/// What a client may connect to besides proxies.
const ORIGIN_PORTS: [u16; 4] = [80, 8080, 443, 8443];

/// How long a server waits for a client that says nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// Who was connected to, in order.
type Log = Arc<Mutex<Vec<Verdict>>>;

/// A command that runs `program` in new network and mount namespaces, which end with it.
pub fn command(program: &Path) -> Command {
    let mut command = crate::process::bound("unshare");
    command.args(["--net", "--mount", "--fork", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--").arg(program);
    command
}

/// Whether this machine gives out such namespaces; otherwise why not.
pub fn is_available() -> Result<(), String> {
    let mut command = command(Path::new("ip"));
    let output = command
        .args(["link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("setpriv, unshare (util-linux): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "no network namespace with unshare and ip: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

/// Runs the client for the cases that come in, a line each, and writes a line for each: the verdict and what the client
/// said. The process is in the namespace already.
pub fn serve(program: &Program) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let log = set_up(folder.path())?;
    let mut session = program.start()?;
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        lock(&log).clear();
        let said = session.get(&line)?;
        let verdict = lock(&log).first().copied().unwrap_or(Verdict::Error);
        writeln!(output, "{verdict}\t{}", said.replace(['\t', '\n', '\r'], " "))?;
        output.flush()?;
    }
    Ok(())
}

fn set_up(folder: &Path) -> io::Result<Log> {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output()?;
        if output.status.success() {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{program} {}: {errors}", arguments.join(" "))))
    };
    run("ip", &["link", "set", "lo", "up"])?;
    run("ip", &["route", "add", "local", "0.0.0.0/0", "dev", "lo"])?;
    run("ip", &["-6", "route", "add", "local", "::/0", "dev", "lo"])?;
    // This namespace's own files, so that names are those of the cases.
    for (file, text) in [
        ("/etc/hosts", "127.0.0.1 localhost\n"),
        ("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n"),
        ("/etc/nsswitch.conf", "hosts: files dns\n"),
    ] {
        let own = folder.join(Path::new(file).file_name().expect("a name"));
        fs::write(&own, text)?;
        run("mount", &["--bind", &own.display().to_string(), file])?;
    }
    let log = Log::default();
    for port in ORIGIN_PORTS {
        listen(port, Verdict::Direct, &log)?;
    }
    for port in PROXY_PORTS {
        listen(port, Verdict::Proxied(port), &log)?;
    }
    let dns = UdpSocket::bind("127.0.0.1:53")?;
    thread::spawn(move || name_service(&dns));
    Ok(log)
}

fn lock(log: &Log) -> std::sync::MutexGuard<'_, Vec<Verdict>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(port: u16, verdict: Verdict, log: &Log) -> io::Result<()> {
    // Both families.
    let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    let log = Arc::clone(log);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Before the answer, so before the client is done.
            lock(&log).push(verdict);
            thread::spawn(move || answer(stream, verdict));
        }
    });
    Ok(())
}

/// Answers a plain request; refuses tunnels, and ends what speaks TLS: where it went is known by then.
fn answer(mut stream: TcpStream, verdict: Verdict) {
    let _ = stream.set_read_timeout(Some(SILENCE));
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
        // A TLS record, or SOCKS.
        if !request[0].is_ascii_uppercase() {
            return;
        }
    }
    let letter = if verdict == Verdict::Direct { 'D' } else { 'P' };
    let response = if request.starts_with(b"CONNECT") {
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
    } else {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{letter}")
    };
    let _ = stream.write_all(response.as_bytes());
}

/// Answers questions for an A record; there are no others (RFC 1035, section 4).
fn name_service(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        if let Some(answer) = name_answer(&buffer[..length]) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn name_answer(question: &[u8]) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = question.get(at..at + 4)?;
    let name = labels.join(".");
    let address = match NAMES.iter().find(|(known, _)| *known == name) {
        Some((_, address)) => address.parse::<std::net::Ipv4Addr>().ok()?.octets(),
        None => ELSEWHERE,
    };
    let is_a = kind == [0, 1, 0, 1];
    // The question's number; a response with recursion; one question, one answer or none.
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(&question[12..at + 4]);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address);
    }
    Some(answer)
}
