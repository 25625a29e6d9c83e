//! The real clients: where their programs are, and how they are run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use reach::clients::{Client, Environment};

/// A client's program.
#[derive(Clone, Debug)]
pub struct Program {
    pub client: Client,
    /// As it calls itself.
    pub version: String,
    command: Vec<OsString>,
    is_worker: bool,
    /// Whether the worker starts anew for each case, because the client reads the variables only then.
    pub is_fresh: bool,
}

/// A program at work.
pub enum Session<'a> {
    /// One process for each case.
    Each(&'a Program),
    /// One process for all.
    Worker(Child, ChildStdin, BufReader<ChildStdout>),
}

/// The clients that `make clients` installs.
pub fn installed(folder: &Path) -> Vec<Program> {
    let program = |name: &str| folder.join(name).into_os_string();
    let worker = |name: &str| workers().join(name).into_os_string();
    let node = |library: &str, options: &[&str]| {
        let mut command = vec![program("node")];
        command.extend(options.iter().map(OsString::from));
        command.extend([worker("get.cjs"), library.into()]);
        command
    };
    let python = |library: &str| vec![program("python"), worker("get.py"), library.into()];
    let python_version = |module: &str| {
        let script = format!("import {module}; print('{module}', {module}.__version__)");
        said(&[program("python"), "-c".into(), script.into()])
    };
    let node_version = |package: &str| {
        let script = format!(
            "console.log('{package}', require('{package}/package.json').version, 'on Node', process.version)"
        );
        said(&[program("node"), "-e".into(), script.into()])
    };
    let one = |client, version: String, command: Vec<OsString>, is_worker| Program {
        client,
        version,
        command,
        is_worker,
        is_fresh: false,
    };
    let curl = |client, version: &str| {
        let file = program(&format!("curl-{version}"));
        one(client, said(&[file.clone(), "--version".into()]), vec![file], false)
    };
    let mut programs = vec![
        curl(Client::Curl, "8.22.0"),
        curl(Client::Curl7_88, "7.88.1"),
        curl(Client::Curl7_85, "7.83.1"),
        one(Client::Go, said(&["go".into(), "version".into()]), vec![program("go")], false),
        one(Client::PythonUrllib, said(&[program("python"), "--version".into()]), python("urllib"), true),
        one(Client::Requests, python_version("requests"), python("requests"), true),
        one(Client::Httpx, python_version("httpx"), python("httpx"), true),
        one(Client::Aiohttp, python_version("aiohttp"), python("aiohttp"), true),
        one(Client::Undici, node_version("undici"), node("undici", &[]), true),
        one(
            Client::NodeFetch,
            said(&[program("node"), "--version".into()]),
            node("node-fetch", &["--expose-internals"]),
            true,
        ),
        one(
            Client::NodeHttp,
            said(&[program("node"), "--version".into()]),
            node("node-http", &["--expose-internals"]),
            true,
        ),
        one(Client::Axios, node_version("axios"), node("axios", &[]), true),
        one(Client::Reqwest, "reqwest 0.13.5".to_owned(), vec![program("reqwest")], false),
        one(Client::Java, said(&["java".into(), "--version".into()]), vec![program("java")], true),
    ];
    programs.extend(
        machine()
            .into_iter()
            .filter(|machine| matches!(machine.client, Client::Wget | Client::BusyboxWget | Client::Ruby)),
    );
    programs.sort_by_key(|program| Client::ALL.iter().position(|client| *client == program.client));
    programs
}

/// The clients that are on this machine anyway.
pub fn machine() -> Vec<Program> {
    let worker = |name: &str| workers().join(name).into_os_string();
    let mut programs = Vec::new();
    let mut add = |client, version: &[&str], command: Vec<OsString>, is_worker| {
        let version: Vec<OsString> = version.iter().map(OsString::from).collect();
        let version = said(&version);
        if !version.is_empty() {
            programs.push(Program { client, version, command, is_worker, is_fresh: false });
        }
    };
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let curl = said(&words(&["curl", "--version"]));
    if let Some(era) = curl_era(&curl) {
        add(
            era,
            &["curl", "--version"],
            words(&["curl", "-q", "-s", "-k", "-m", "20", "-o", "/dev/null"]),
            false,
        );
    }
    if said(&words(&["wget", "--version"])).starts_with("GNU Wget") {
        let wget = [
            "wget",
            "-q",
            "-t",
            "1",
            "-T",
            "20",
            "-O",
            "/dev/null",
            "--no-config",
            "--no-hsts",
            "--no-check-certificate",
        ];
        add(Client::Wget, &["wget", "--version"], words(&wget), false);
    }
    let busybox = ["busybox", "wget", "-q", "--no-check-certificate", "-O", "/dev/null"];
    add(Client::BusyboxWget, &["busybox"], words(&busybox), false);
    let python = vec!["python3".into(), "-B".into(), worker("get.py"), "urllib".into()];
    add(Client::PythonUrllib, &["python3", "--version"], python, true);
    let ruby = vec!["ruby".into(), worker("get.rb")];
    add(Client::Ruby, &["ruby", "--version"], ruby, true);
    // A launcher of sources compiles in memory.
    let java = vec!["java".into(), worker("Get.java")];
    if !said(&words(&["javac", "--version"])).is_empty() {
        add(Client::Java, &["java", "--version"], java, true);
    }
    // The version that the model follows, and what came after it.
    let node = said(&words(&["node", "--version"]));
    if node
        .strip_prefix('v')
        .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok())
        .is_some_and(|major| major >= 24)
    {
        for (client, library) in [(Client::NodeFetch, "node-fetch"), (Client::NodeHttp, "node-http")] {
            let command = vec!["node".into(), "--expose-internals".into(), worker("get.cjs"), library.into()];
            add(client, &["node", "--version"], command, true);
        }
    }
    programs
}

fn workers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/workers")
}

/// Which model a curl on the machine is like, if any: not the few versions in between.
fn curl_era(version: &str) -> Option<Client> {
    let mut numbers =
        version.strip_prefix("curl ")?.split([' ', '.']).map(|number| number.parse::<u32>().unwrap_or(0));
    match (numbers.next()?, numbers.next()?) {
        (7, minor) if minor < 86 => Some(Client::Curl7_85),
        (7, minor) if minor > 86 => Some(Client::Curl7_88),
        (8, minor) if minor < 9 => Some(Client::Curl7_88),
        (major, minor) if (major, minor) >= (8, 18) => Some(Client::Curl),
        _ => None,
    }
}

/// The first line that a command prints, nothing when it cannot be run.
fn said(command: &[OsString]) -> String {
    let output = Command::new(&command[0]).args(&command[1..]).stdin(Stdio::null()).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned(),
    )
}

/// A case as workers read it: the URL and the variables, between tabs.
pub fn line(url: &str, environment: &Environment) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n");
    let mut line = escape(url);
    for variable in environment.iter() {
        let _ = write!(line, "\t{}={}", escape(variable.name), escape(variable.value));
    }
    line
}

fn parse(line: &str) -> (String, BTreeMap<usize, (String, String)>) {
    let plain = |field: &str| {
        let mut text = String::new();
        let mut characters = field.chars();
        while let Some(c) = characters.next() {
            match c {
                '\\' => text.push(match characters.next() {
                    Some('t') => '\t',
                    Some('n') => '\n',
                    other => other.unwrap_or('\\'),
                }),
                _ => text.push(c),
            }
        }
        text
    };
    let mut fields = line.split('\t').map(plain);
    let url = fields.next().unwrap_or_default();
    let pairs = fields.filter_map(|field| field.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())));
    (url, pairs.enumerate().collect())
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).env_clear();
        for name in ["PATH", "HOME", "JAVA_HOME"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command
    }

    /// The program, to be started anew for each case.
    pub fn fresh(&self) -> Self {
        Self { is_fresh: true, ..self.clone() }
    }

    /// Starts it, if one process is for all cases.
    pub fn start(&self) -> io::Result<Session<'_>> {
        if !self.is_worker || self.is_fresh {
            return Ok(Session::Each(self));
        }
        let mut child =
            self.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        Ok(Session::Worker(child, input, BufReader::new(output)))
    }
}

impl Session<'_> {
    /// Gets a URL, and says what the client said.
    pub fn get(&mut self, line: &str) -> io::Result<String> {
        match self {
            Self::Each(program) => {
                let (url, variables) = parse(line);
                let mut command = program.command();
                command.envs(variables.into_values()).arg(url).stdin(Stdio::null());
                let output = command.output()?;
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text).trim().chars().take(200).collect::<String>();
                Ok(format!("{}: {text}", output.status))
            }
            Self::Worker(child, input, output) => {
                writeln!(input, "{line}")?;
                input.flush()?;
                let mut answer = String::new();
                if output.read_line(&mut answer)? == 0 {
                    return Err(io::Error::other(format!("the worker ended ({}) at {line}", child.wait()?)));
                }
                Ok(answer)
            }
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Self::Worker(child, ..) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
