//! The container image that `make image` makes: what is in the archive, and that its program runs with nothing around it.
//!
//! What runs, runs as in a pod: process 1 of its PID namespace, user 65532, no capabilities, a root folder that is read-only
//! and holds the layer and what would be mounted. That takes root; without, those tests say that they did not run.

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::control_plane::{ControlPlane, Options};
use support::review::{patch, review_of};
use support::serve::{PATH, Reach};
use support::{eventually, http};
use tempfile::TempDir;

/// Bound on the size of the image, both as it is transferred and as it lies on a node, in bytes.
const MAX_SIZE: usize = 20_000_000;

/// Where the tests' name server listens: an address of the loopback interface that nobody else uses, because
/// `/etc/resolv.conf` has no ports.
const NAME_SERVER: &str = "127.0.77.53";

/// How the API server's certificate calls it besides its addresses.
const API_SERVER_NAME: &str = "kubernetes.default.svc";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Runs the program `$2` with the rest as its arguments, in the root folder `$1`, as process 1 and user 65532. The mount is
/// that of a mount namespace of its own, and ends with it.
const IN_A_POD: &str = r#"
set -eu
root=$1
shift
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
unshare --pid --fork -- chroot --userspec=65532:65532 --groups= "$root" "$@"
"#;

/// An unpacked archive.
struct Archive {
    folder: TempDir,
}

/// The root folder of a container of the image.
struct Root {
    folder: TempDir,
    environment: Vec<(String, String)>,
    /// The CA of the certificate in it.
    ca: String,
}

/// A name server that knows the API server.
struct NameServer {
    answered: Arc<AtomicUsize>,
}

// === what is in it ===

#[test]
fn the_archive_is_an_image_layout_that_names_what_it_holds_by_digest() {
    let archive = Archive::built();
    assert_eq!(archive.json("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}));
    let index = archive.json("index.json");
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(INDEX)), "{index}");
    let [entry] = index["manifests"].as_array().expect("a list").as_slice() else {
        panic!("one manifest is expected: {index}")
    };
    let manifest = archive.described(entry, MANIFEST);
    assert_eq!(
        (&manifest["schemaVersion"], &manifest["mediaType"]),
        (&json!(2), &json!(MANIFEST)),
        "{manifest}"
    );
    let config = archive.described(&manifest["config"], CONFIG);
    let [layer] = manifest["layers"].as_array().expect("a list").as_slice() else {
        panic!("one layer is expected: {manifest}")
    };
    archive.blob(layer, LAYER);
    let diff_id = format!("sha256:{}", sha256(&archive.layer()));
    assert_eq!(config["rootfs"], json!({"type": "layers", "diff_ids": [diff_id]}));

    // What is not an OCI image layout to Docker is one of its own, of the same blobs.
    let of = |descriptor: &Value| blob_path(text(&descriptor["digest"]));
    let name = name();
    assert_eq!(
        archive.json("manifest.json"),
        json!([{"Config": of(&manifest["config"]), "RepoTags": [name], "Layers": [of(layer)]}])
    );
    let names = &entry["annotations"];
    let full = if name.contains('/') { name.clone() } else { format!("docker.io/library/{name}") };
    assert_eq!(names["io.containerd.image.name"], full);
    assert_eq!(names["org.opencontainers.image.ref.name"], name.rsplit_once(':').expect("a tag").1);
    let expected = [
        "oci-layout".to_owned(),
        "index.json".to_owned(),
        "manifest.json".to_owned(),
        of(entry),
        of(&manifest["config"]),
        of(layer),
    ];
    assert_eq!(listing(&built(), "%f"), expected);
}

#[test]
fn the_image_is_one_program_of_nobody() {
    let archive = Archive::built();
    let (entry, manifest, config) = archive.parts();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => panic!("images are not made for {other}"),
    };
    assert_eq!(entry["platform"], json!({"architecture": architecture, "os": "linux"}));
    assert_eq!((&config["architecture"], &config["os"]), (&json!(architecture), &json!("linux")));
    let labels = &config["config"]["Labels"];
    assert_eq!(
        config["config"],
        json!({
            "User": "65532:65532",
            "Entrypoint": ["/reach"],
            "WorkingDir": "/",
            "ExposedPorts": {"9080/tcp": {}, "9443/tcp": {}},
            "Labels": labels,
        })
    );
    assert_eq!(labels, &manifest["annotations"], "labels are annotations too");
    let label = |name: &str| labels[format!("org.opencontainers.image.{name}")].as_str();
    assert_eq!(label("title"), Some("reach"));
    assert_eq!(label("version"), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(label("licenses"), Some(env!("CARGO_PKG_LICENSE")));
    assert_eq!(label("description"), Some(env!("CARGO_PKG_DESCRIPTION")));
    assert_eq!(label("created"), config["created"].as_str());
    // Of a folder with git; an unpacked source archive has no revision.
    if Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
        let revision = label("revision").expect("a revision");
        let hash = revision.strip_suffix("-dirty").unwrap_or(revision);
        assert!(hash.len() == 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{revision}");
    }

    let layer = archive.folder.path().join("layer.tar");
    fs::write(&layer, archive.layer()).expect("the layer");
    assert_eq!(listing(&layer, "%m %u/%g %f"), ["-r-xr-xr-x 0/0 reach"]);
}

#[test]
fn the_image_is_small() {
    let archive = Archive::built();
    let compressed = fs::read(built()).expect("the archive").len();
    let uncompressed = archive.layer().len();
    say(&format!("image: {compressed} bytes to transfer, {uncompressed} bytes on a node"));
    assert!(uncompressed < MAX_SIZE && compressed < uncompressed, "the bound is {MAX_SIZE}");
}

#[test]
fn the_program_needs_no_library_and_tells_scanners_what_is_in_it() {
    let archive = Archive::built();
    let program = archive.program();
    let read = |what: &str| run(Command::new("readelf").args(["--wide", what]).arg(&program));
    assert!(read("--file-header").contains("DYN ("), "its address is random: {}", read("--file-header"));
    assert!(!read("--program-headers").contains("INTERP"), "{}", read("--program-headers"));
    assert!(!read("--dynamic").contains("NEEDED"), "{}", read("--dynamic"));
    let sections = read("--section-headers");
    assert!(!sections.contains(".symtab") && !sections.contains(".debug"), "not stripped: {sections}");
    assert!(sections.contains(".dep-v0"), "no list of dependencies: {sections}");
}

#[test]
fn the_program_knows_nothing_of_the_machine_it_was_built_on() {
    let program = fs::read(Archive::built().program()).expect("the program");
    let cargo = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| home + "/.cargo"));
    let rust = run(Command::new("rustc").args(["--print", "sysroot"]));
    for path in [env!("CARGO_MANIFEST_DIR"), &cargo.expect("HOME"), rust.trim(), env!("CARGO_TARGET_TMPDIR")]
    {
        let at = program.windows(path.len()).position(|bytes| bytes == path.as_bytes());
        let seen =
            at.map(|at| String::from_utf8_lossy(&program[at..(at + 200).min(program.len())]).into_owned());
        assert_eq!(seen, None, "{path}");
    }
    // What stands in their place does, so the search would have found them.
    assert!(program.windows(7).any(|bytes| bytes == b"/cargo/"), "no path of a dependency");
}

#[test]
fn the_same_program_packed_again_gives_the_same_bytes() {
    let archive = Archive::built();
    let again = archive.folder.path().join("elsewhere/again.tar");
    let copy = archive.folder.path().join("copy-with-another-time");
    fs::copy(archive.program(), &copy).expect("a copy");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o640)).expect("other permissions");
    let mut command = archive.packing(&copy, &again);
    command.env("TZ", "Asia/Tokyo").env("LC_ALL", "C.UTF-8").current_dir(archive.folder.path());
    run(&mut command);
    assert!(fs::read(built()).expect("the archive") == fs::read(again).expect("the same"), "they differ");
}

#[test]
fn images_for_two_architectures_join_into_one() {
    let archive = Archive::built();
    let folder = archive.folder.path();
    // No compiler for the other architecture is needed to see how two join.
    let mut program = fs::read(archive.program()).expect("the program");
    let machine = if cfg!(target_arch = "x86_64") { [0xb7, 0] } else { [0x3e, 0] };
    program[18..20].copy_from_slice(&machine);
    fs::write(folder.join("other"), program).expect("the other program");
    let other = folder.join("other.tar");
    run(&mut archive.packing(&folder.join("other"), &other));

    let join = |name: &str, inputs: [&Path; 2]| {
        let joint = folder.join(name);
        let mut command = script("index.sh");
        command.arg(&joint).args(inputs);
        (joint, command)
    };
    let (joint, mut command) = join("joint.tar", [&built(), &other]);
    let digest = run(&mut command);
    let (reverse, mut command) = join("reverse.tar", [&other, &built()]);
    assert_eq!(run(&mut command), digest);
    assert!(fs::read(&joint).expect("it") == fs::read(reverse).expect("it"), "the order of the inputs shows");

    let joint = Archive::open(&joint);
    let entry = joint.json("index.json")["manifests"][0].clone();
    assert_eq!(text(&entry["digest"]), digest.trim());
    let index = joint.described(&entry, INDEX);
    let manifests = index["manifests"].as_array().expect("a list");
    let architectures: Vec<_> =
        manifests.iter().map(|manifest| text(&manifest["platform"]["architecture"])).collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    let before: BTreeSet<String> =
        [Archive::built(), Archive::open(&other)].map(|one| text(&one.parts().0["digest"]).to_owned()).into();
    let after: BTreeSet<String> =
        manifests.iter().map(|manifest| text(&manifest["digest"]).to_owned()).collect();
    assert_eq!(before, after);
    for manifest in manifests {
        let manifest = joint.described(manifest, MANIFEST);
        joint.blob(&manifest["config"], CONFIG);
        joint.blob(&manifest["layers"][0], LAYER);
    }

    let (_, mut twice) = join("twice.tar", [&built(), &built()]);
    let output = twice.output().expect("index.sh");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("same architecture"), "{message}");
}

// === that it runs ===

#[test]
fn the_program_starts() {
    let output = run(Command::new(Archive::built().program()).arg("--version").env_clear());
    assert_eq!(output, concat!("reach ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn in_a_pod_it_answers_reviews_and_ends_well() {
    if !may("in_a_pod_it_answers_reviews_and_ends_well") {
        return;
    }
    let root = Root::new();
    let presets = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/presets");
    for file in fs::read_dir(presets).expect("presets") {
        let file = file.expect("a file");
        root.write(&format!("presets/{}", file.file_name().display()), &read(file.path()));
    }
    let mut reach = root.serve(&["--presets", "/presets"]);
    reach.await_ready();
    root.injects(&reach);

    let id = within(reach.id(), "/reach");
    let status = read(format!("/proc/{}/status", id.as_raw_nonzero()));
    let of = |name: &str| -> Vec<&str> {
        let line = status.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().skip(1).collect()
    };
    assert_eq!(of("Uid:"), ["65532"; 4]);
    assert_eq!(of("Gid:"), ["65532"; 4]);
    assert_eq!(of("CapEff:"), ["0000000000000000"]);
    // Its own is the last: the kernel ignores signals to a process 1 that does not ask for them.
    assert_eq!(of("NSpid:").last(), Some(&"1"), "{status}");
    kill_process(id, Signal::TERM).expect("SIGTERM");
    assert!(reach.await_end().success());
}

/// A static glibc has what looks up names in itself, which nothing but a run can show.
#[test]
fn in_a_pod_it_finds_the_api_server_by_address_and_by_name() {
    if !may("in_a_pod_it_finds_the_api_server_by_address_and_by_name") {
        return;
    }
    let control_plane = ControlPlane::start(Options::default());
    for file in ["crds", "examples/presets"] {
        let file = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        eventually("CRDs and presets are in", || {
            let applied = control_plane.kubectl(&["apply", "--filename", &file]);
            if applied.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&applied.stderr).into_owned())
            }
        });
    }
    let kubeconfig: Value = serde_json::from_str(&read(control_plane.kubeconfig())).expect("JSON");
    let port = control_plane.url().rsplit_once(':').expect("a port").1.to_owned();
    let root = |host: &str| {
        let mut root = Root::new();
        let account = "var/run/secrets/kubernetes.io/serviceaccount";
        root.write(&format!("{account}/token"), text(&kubeconfig["users"][0]["user"]["token"]));
        let ca = text(&kubeconfig["clusters"][0]["cluster"]["certificate-authority"]);
        root.write(&format!("{account}/ca.crt"), &read(ca));
        root.write(&format!("{account}/namespace"), "default");
        root.environment.push(("KUBERNETES_SERVICE_HOST".to_owned(), host.to_owned()));
        root.environment.push(("KUBERNETES_SERVICE_PORT".to_owned(), port.clone()));
        root
    };
    let works = |root: &Root| {
        let reach = root.serve(&[]);
        reach.await_ready();
        root.injects(&reach);
    };

    works(&root("127.0.0.1"));

    let hosts = root(API_SERVER_NAME);
    hosts.write("etc/hosts", &format!("127.0.0.1 localhost\n127.0.0.1 {API_SERVER_NAME}\n"));
    works(&hosts);

    // As kubelet writes it: a name with fewer dots is looked for in each domain first.
    let name_server = NameServer::start();
    let dns = root(API_SERVER_NAME);
    dns.write("etc/hosts", "127.0.0.1 localhost\n");
    dns.write(
        "etc/resolv.conf",
        &format!(
            "search default.svc.cluster.local svc.cluster.local\nnameserver {NAME_SERVER}\noptions ndots:5\n"
        ),
    );
    works(&dns);
    assert!(name_server.answered.load(Ordering::Relaxed) > 0, "it was not asked");
}

// === impl Archive ===

impl Archive {
    /// The archive that `make image` made.
    fn built() -> Self {
        Self::open(&built())
    }

    fn open(path: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("reach-image-").tempdir().expect("a temporary folder");
        run(Command::new("tar").arg("-xf").arg(path).arg("-C").arg(folder.path()));
        Self { folder }
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&fs::read(self.folder.path().join(path)).expect(path)).expect(path)
    }

    /// The bytes that a descriptor describes, after a look that they are those.
    fn blob(&self, descriptor: &Value, media_type: &str) -> Vec<u8> {
        assert_eq!(descriptor["mediaType"], media_type, "{descriptor}");
        let digest = text(&descriptor["digest"]);
        let bytes = fs::read(self.folder.path().join(blob_path(digest))).expect(digest);
        assert_eq!(format!("sha256:{}", sha256(&bytes)), digest);
        assert_eq!(descriptor["size"], bytes.len(), "{descriptor}");
        bytes
    }

    fn described(&self, descriptor: &Value, media_type: &str) -> Value {
        serde_json::from_slice(&self.blob(descriptor, media_type)).expect("JSON")
    }

    /// The entry of the index, the manifest and the configuration.
    fn parts(&self) -> (Value, Value, Value) {
        let entry = self.json("index.json")["manifests"][0].clone();
        let manifest = self.described(&entry, MANIFEST);
        let config = self.described(&manifest["config"], CONFIG);
        (entry, manifest, config)
    }

    /// The layer, as a tar.
    fn layer(&self) -> Vec<u8> {
        let (_, manifest, _) = self.parts();
        let path = self.folder.path().join(blob_path(text(&manifest["layers"][0]["digest"])));
        let output = Command::new("gzip").arg("-dc").stdin(fs::File::open(path).expect("the layer")).output();
        let output = output.expect("gzip");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    /// Unpacks the layer into a folder.
    fn unpack(&self, folder: &Path) {
        let layer = self.folder.path().join("unpacked.tar");
        fs::write(&layer, self.layer()).expect("the layer");
        run(Command::new("tar").arg("-xpf").arg(layer).arg("-C").arg(folder));
    }

    /// The program, unpacked.
    fn program(&self) -> PathBuf {
        let folder = self.folder.path().join("root");
        fs::create_dir_all(&folder).expect("a folder");
        self.unpack(&folder);
        folder.join("reach")
    }

    /// What packs a program as this one is packed.
    fn packing(&self, program: &Path, archive: &Path) -> Command {
        let (_, _, config) = self.parts();
        let label = |name: &str| {
            let label = &config["config"]["Labels"][format!("org.opencontainers.image.{name}")];
            label.as_str().unwrap_or_default().to_owned()
        };
        let epoch = run(Command::new("date").args(["-d", &label("created"), "+%s"]));
        let mut command = script("pack.sh");
        command.arg(program).arg(archive).env("IMAGE", name()).env("SOURCE_DATE_EPOCH", epoch.trim());
        for (variable, name) in [("VERSION", "version"), ("REVISION", "revision"), ("SOURCE", "source")] {
            command.env(variable, label(name));
        }
        command
    }
}

// === impl Root ===

impl Root {
    fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("reach-image-root-").tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        Archive::built().unpack(folder.path());
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new([http::NAME.to_owned()]).expect("a name");
        let ca = certificate.self_signed(&key).expect("a certificate").pem();
        let root = Self { folder, environment: Vec::new(), ca };
        root.write("tls/tls.crt", &root.ca);
        root.write("tls/tls.key", &key.serialize_pem());
        root
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("permissions");
    }

    /// Runs `reach serve`, with nothing in its environment but what was set here.
    fn serve(&self, arguments: &[&str]) -> Reach {
        let mut program =
            vec!["env".to_owned(), "-i".to_owned(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        program.extend(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        program
            .extend(["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--"].map(str::to_owned));
        program.extend(["sh", "-c", IN_A_POD, "sh"].map(str::to_owned));
        program.extend([self.folder.path().to_str().expect("text").to_owned(), "/reach".to_owned()]);
        let fixed = ["--tls-cert", "/tls/tls.crt", "--tls-key", "/tls/tls.key", "--drain", "0"];
        Reach::start_program(&program, fixed.iter().chain(arguments))
    }

    /// Sees that a pod gets what the presets say, over TLS.
    fn injects(&self, reach: &Reach) {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "app"},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        let connection = http::connect_tls(reach.webhook, &self.ca, "http/1.1").expect("a connection");
        let request = http::post(PATH, review_of(&pod).to_string());
        let reply = http::exchange(connection, &request).expect("a reply");
        let response = &reply.json()["response"];
        let patch = patch(response).unwrap_or_else(|| panic!("no patch: {reply:?}"));
        assert!(patch.to_string().contains("http_proxy"), "{patch}");
    }
}

// === impl NameServer ===

impl NameServer {
    fn start() -> Self {
        let socket = UdpSocket::bind((NAME_SERVER, 53)).expect("port 53 of an address of our own");
        let answered = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&answered);
        // It ends with the process: there is nothing to wait for.
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                if let Some(answer) = answer(&buffer[..length]) {
                    counter.fetch_add(1, Ordering::Relaxed);
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Self { answered }
    }
}

/// The answer to a DNS query with one question: 127.0.0.1 for the API server's name, which has no IPv6 address; there is
/// nothing else. `None` for what is no such query.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut name = String::new();
    let mut at = 12;
    while *query.get(at)? != 0 {
        let end = at + 1 + usize::from(query[at]);
        write!(name, "{}.", std::str::from_utf8(query.get(at + 1..end)?).ok()?).ok()?;
        at = end;
    }
    let question = query.get(12..at + 5)?;
    let known = name.trim_end_matches('.') == API_SERVER_NAME;
    let is_a = known && question.ends_with(&[0, 1, 0, 1]);
    // A reply, recursion available; code 3 is "no such name". One question, perhaps one answer.
    let head =
        [query[0], query[1], 0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0];
    let mut answer = [&head, question].concat();
    if is_a {
        // The name of the question, type A, class IN, 5 seconds, 4 bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

// === what they share ===

/// Where `make image` puts the archive.
fn built() -> PathBuf {
    let path = std::env::var_os("ARCHIVE").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("image").join("reach.tar"),
        PathBuf::from,
    );
    assert!(path.exists(), "{} is not there: run `make image`", path.display());
    path
}

/// The name that the image was made with.
fn name() -> String {
    std::env::var("IMAGE").unwrap_or_else(|_| "reach:dev".to_owned())
}

/// Whether what runs in a pod can be run. Says so when not, past the harness, which would keep it to itself.
fn may(test: &str) -> bool {
    if rustix::process::getuid().is_root() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "needs root: mount, chroot, unshare");
    say(&format!("NOT RUN: {test}: needs root (mount, chroot, unshare)"));
    false
}

fn say(line: &str) {
    writeln!(io::stderr(), "{line}").expect("standard error");
}

/// The descendant of a process that runs this program in its own root folder.
fn within(process: u32, program: &str) -> Pid {
    let children = read(format!("/proc/{process}/task/{process}/children"));
    let child = children.split_whitespace().next().expect("a child").parse().expect("a number");
    let name = fs::read(format!("/proc/{child}/cmdline")).expect("its command line");
    if name.split(|byte| *byte == 0).next() == Some(program.as_bytes()) {
        return Pid::from_raw(i32::try_from(child).expect("a process")).expect("a process");
    }
    within(child, program)
}

fn script(name: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("image").join(name));
    for variable in ["IMAGE", "VERSION", "REVISION", "SOURCE", "SOURCE_DATE_EPOCH"] {
        command.env_remove(variable);
    }
    command
}

/// Runs a command and returns what it printed.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A line for each entry of a tar, with `%m` its type and permissions, `%u` and `%g` its owner, `%f` its path.
fn listing(tar: &Path, form: &str) -> Vec<String> {
    let lines = run(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(tar).env("LC_ALL", "C"));
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (user, group) = fields[1].split_once('/').expect("an owner");
        let path = fields.last().expect("a path");
        form.replace("%m", fields[0]).replace("%u", user).replace("%g", group).replace("%f", path)
    };
    lines.lines().map(line).collect()
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn sha256(bytes: &[u8]) -> String {
    let digest = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let digest = digest.tls13().expect("a suite of TLS 1.3").common.hash_provider.hash(bytes);
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text is expected: {value}"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
