//! kubectl on a cluster, whichever it is.

use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use super::eventually;
use super::process::{bound, flag};

/// A cluster that kubectl speaks to, as a user who may do everything.
pub trait Kubectl {
    /// Runs kubectl, and returns what came out of it, whether it succeeded or not.
    ///
    /// # Panics
    /// When kubectl cannot be started.
    fn run_kubectl(&self, arguments: &[&str], stdin: Stdio) -> Output;

    /// [`Self::run_kubectl`] without standard input.
    fn kubectl(&self, arguments: &[&str]) -> Output {
        self.run_kubectl(arguments, Stdio::null())
    }

    /// [`Self::run_kubectl`] with the given standard input, for `-f -`.
    fn kubectl_with_stdin(&self, arguments: &[&str], stdin: impl AsRef<[u8]>) -> Output
    where
        Self: Sized,
    {
        // From a file: kubectl may print much before it has read all, and two pipes could then wait for each other.
        let mut file = tempfile::tempfile().expect("cannot make a temporary file");
        file.write_all(stdin.as_ref()).and_then(|()| file.rewind()).expect("cannot write a temporary file");
        self.run_kubectl(arguments, file.into())
    }

    /// What a successful kubectl prints.
    ///
    /// # Panics
    /// When it fails; the message has what it said.
    #[track_caller]
    fn ask(&self, arguments: &[&str]) -> String {
        succeeded(&format!("kubectl {}", arguments.join(" ")), self.kubectl(arguments))
    }

    /// `kubectl get ... --output json`.
    ///
    /// # Panics
    /// When it fails; the message has what it said.
    #[track_caller]
    fn get(&self, arguments: &[&str]) -> Value {
        let text = self.ask(&[&["get", "--output=json"], arguments].concat());
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// `kubectl apply --server-side` of an object, or of an array of objects.
    ///
    /// # Panics
    /// When it fails; the message has what it said.
    #[track_caller]
    fn apply(&self, manifest: &Value)
    where
        Self: Sized,
    {
        let list = match manifest {
            Value::Array(items) => json!({"apiVersion": "v1", "kind": "List", "items": items}),
            object => object.clone(),
        };
        let output = self.kubectl_with_stdin(&["apply", "--server-side", "-f", "-"], list.to_string());
        succeeded("kubectl apply", output);
    }

    /// Makes a namespace and waits for its service account, without which the API server refuses pods.
    ///
    /// # Panics
    /// When the namespace cannot be made.
    #[track_caller]
    fn create_namespace(&self, name: &str) {
        self.ask(&["create", "namespace", name]);
        self.await_object(name, "serviceaccount/default");
        self.await_object(name, "configmap/kube-root-ca.crt");
    }

    /// Waits for an object that a controller makes by itself.
    ///
    /// # Panics
    /// When it is not there in time.
    fn await_object(&self, namespace: &str, object: &str) {
        eventually(&format!("{object} in {namespace}"), || {
            let answer = self.kubectl(&["get", "--namespace", namespace, object]);
            if answer.status.success() { Ok(()) } else { Err(text(&answer)) }
        });
    }

    /// Waits until a Deployment (`deployment/NAME`), a DaemonSet or a StatefulSet is rolled out.
    ///
    /// # Panics
    /// When it is not in time; the message has the pods and the events of the namespace.
    #[track_caller]
    fn await_rollout(&self, namespace: &str, workload: &str) {
        let output = self.kubectl(&["rollout", "status", "--timeout=3m", "--namespace", namespace, workload]);
        assert!(
            output.status.success(),
            "{workload} in {namespace} is not rolled out: {}{}",
            text(&output),
            self.describe(namespace)
        );
    }

    /// Runs a command in a running container: `exec("shop", "deployment/client", &["curl", "http://mysql/"])`. Options of
    /// kubectl, such as `--container=NAME`, may stand in front of a `--` of the command.
    fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Output {
        let separator: &[&str] = if command.contains(&"--") { &[] } else { &["--"] };
        self.kubectl(&[&["exec", "--namespace", namespace, pod], separator, command].concat())
    }

    /// Pods and events of a namespace, for a message.
    fn describe(&self, namespace: &str) -> String {
        let pods = self.kubectl(&["describe", "pods", "--namespace", namespace]);
        let events = self.kubectl(&["get", "events", "--namespace", namespace]);
        format!("\n--- pods and events:\n{}\n{}", text(&pods), text(&events))
    }
}

/// Runs the kubectl of a folder, with a cache of its own: by default kubectl remembers the resources of an address from an
/// earlier cluster at it.
///
/// # Panics
/// When it cannot be started.
pub fn run(programs: &Path, kubeconfig: &Path, cache: &Path, arguments: &[&str], stdin: Stdio) -> Output {
    bound(programs.join("kubectl"))
        .arg(flag("kubeconfig", kubeconfig))
        .arg(flag("cache-dir", cache))
        .args(arguments)
        .stdin(stdin)
        .output()
        .expect("cannot run kubectl under setpriv (util-linux)")
}

/// What asks an API server whether it is ready.
pub const READY: [&str; 4] = ["get", "--raw", "/readyz", "--request-timeout=5s"];

/// The kubeconfig of a user with a token. It is YAML, which includes JSON.
pub fn kubeconfig(server: &str, ca: &Path, token: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "reach-test", "cluster": {"server": server, "certificate-authority": ca}}],
        "users": [{"name": "reach-test", "user": {"token": token}}],
        "contexts": [{"name": "reach-test", "context": {"cluster": "reach-test", "user": "reach-test"}}],
        "current-context": "reach-test",
    })
    .to_string()
}

/// What a command printed, and its complaints.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The standard output of a command that succeeded.
///
/// # Panics
/// When it did not; the message has what it said.
#[track_caller]
pub fn succeeded(what: &str, output: Output) -> String {
    assert!(output.status.success(), "{what} failed ({}): {}", output.status, text(&output));
    String::from_utf8(output.stdout).unwrap_or_else(|_| panic!("{what} prints what is not UTF-8"))
}
