use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::host::cluster_api::CONTROL_PLANE;

const ENV: &str = "/etc/reach/proxy.env";

fn preset(name: &str, spec: &Value) -> Arc<Preset> {
    let object = json!({
        "apiVersion": "reach.dev/v1alpha1",
        "kind": "ClusterPodPreset",
        "metadata": {"name": name},
        "spec": spec,
    });
    Arc::new(Preset::cluster(&serde_json::from_value(object).unwrap()).unwrap())
}

fn corporate() -> Vec<Arc<Preset>> {
    let env = json!([
        {"name": "http_proxy", "value": "http://me:a%40b@proxy.corp.example:3128", "mergeStrategy": "Replace"},
        {"name": "no_proxy", "value": "localhost,.corp.example", "mergeStrategy": "Merge"},
    ]);
    vec![preset("corporate", &json!({"env": env}))]
}

fn template(kind: &str, group: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{group}/v1beta2"),
        "kind": kind,
        "metadata": {"name": name, "namespace": "classes"},
        "spec": {"template": {"spec": spec}},
    })
}

fn item(uid: &str, holder: (&str, &str, &str), object: &Value) -> Value {
    let (kind, name, field_path) = holder;
    let holder = json!({
        "apiVersion": "any/v1", "kind": kind, "namespace": "prod", "name": name, "fieldPath": field_path,
    });
    json!({"uid": uid, "holderReference": holder, "object": object, "variables": []})
}

/// What Cluster API sends for a cluster of a class for vSphere, once the patches of the class have filled in the endpoint.
fn items() -> Vec<Value> {
    const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";
    const BOOTSTRAP: &str = "bootstrap.cluster.x-k8s.io";
    let cluster = json!({"server": "vcenter.corp.example", "controlPlaneEndpoint": {"host": "10.20.0.10", "port": 6443}});
    let control_plane = json!({"kubeadmConfigSpec": {
        "clusterConfiguration": {"apiServer": {}},
        "files": [{"path": "/etc/motd", "content": "hello"}],
        "preKubeadmCommands": ["hostname web"],
    }});
    let of_cluster = |field| ("Cluster", "web", field);
    let worker = |name| ("MachineDeployment", name, "spec.template.spec.bootstrap.configRef");
    vec![
        item(
            "u-1",
            of_cluster("spec.infrastructureRef"),
            &template("VSphereClusterTemplate", INFRASTRUCTURE, "infra", &cluster),
        ),
        item(
            "u-2",
            of_cluster("spec.controlPlaneRef"),
            &template("KubeadmControlPlaneTemplate", CONTROL_PLANE, "cp", &control_plane),
        ),
        item("u-3", worker("web-md-0"), &template("KubeadmConfigTemplate", BOOTSTRAP, "worker", &json!({}))),
        item("u-4", worker("web-md-1"), &template("KubeadmConfigTemplate", BOOTSTRAP, "worker", &json!({}))),
    ]
}

fn variables(proxy: Option<Value>) -> Value {
    let builtin = json!({"cluster": {
        "name": "web",
        "namespace": "prod",
        "uid": "1",
        "metadata": {"labels": {"team": "shop"}},
        "network": {"serviceDomain": "corp.local", "services": ["10.96.0.0/16"], "pods": ["10.244.0.0/16"]},
        "topology": {"version": "v1.37.1", "class": "vsphere", "classRef": {"name": "vsphere", "namespace": "classes"}},
    }});
    let mut variables = vec![json!({"name": "builtin", "value": builtin})];
    variables.extend(proxy.map(|value| json!({"name": VARIABLE, "value": value})));
    variables.into()
}

fn request(hook: Hook, proxy: Option<Value>, items: &[Value], settings: &Value) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": format!("{}Request", hook.name()),
        "settings": settings,
        "variables": variables(proxy),
        "items": items,
    })
}

fn called(hook: Hook, request: &Value, presets: &[Arc<Preset>]) -> Value {
    let answer = answer(hook, request.to_string().as_bytes(), presets).expect("it can be read");
    let response: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(response["apiVersion"], API_VERSION);
    assert_eq!(response["kind"], format!("{}Response", hook.name()));
    assert_eq!(answer.failure.is_some(), response["status"] == "Failure");
    assert_eq!(answer.failure.as_deref(), response["message"].as_str());
    response
}

/// The templates after the patches of a response, by uid.
fn patched(items: &[Value], response: &Value) -> BTreeMap<String, Value> {
    assert_eq!(response["status"], "Success", "{response}");
    let mut objects: BTreeMap<String, Value> = BTreeMap::new();
    for item in items {
        objects.insert(item["uid"].as_str().unwrap_or_default().to_owned(), item["object"].clone());
    }
    for item in response["items"].as_array().into_iter().flatten() {
        assert_eq!(item["patchType"], "JSONPatch");
        let patch = base64_simd::STANDARD.decode_to_vec(item["patch"].as_str().unwrap()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        json_patch::patch(objects.get_mut(item["uid"].as_str().unwrap()).unwrap(), &patch).unwrap();
    }
    objects
}

fn generated(proxy: Option<Value>, presets: &[Arc<Preset>], settings: &Value) -> BTreeMap<String, Value> {
    let items = items();
    let response =
        called(Hook::GeneratePatches, &request(Hook::GeneratePatches, proxy, &items, settings), presets);
    patched(&items, &response)
}

fn failure(hook: Hook, proxy: Option<Value>, items: &[Value], settings: &Value) -> String {
    let response = called(hook, &request(hook, proxy, items, settings), &corporate());
    assert_eq!(response["status"], "Failure");
    response["message"].as_str().unwrap().to_owned()
}

/// The `KubeadmConfigSpec` of a template.
fn spec(object: &Value) -> &Value {
    let spec = &object["spec"]["template"]["spec"];
    spec.get("kubeadmConfigSpec").unwrap_or(spec)
}

fn file(object: &Value, path: &str) -> Option<String> {
    let files = spec(object)["files"].as_array()?;
    let file = files.iter().find(|file| file["path"] == path)?;
    let content = base64_simd::STANDARD.decode_to_vec(file["content"].as_str()?).ok()?;
    String::from_utf8(content).ok()
}

/// The list of a template.
fn no_proxy(object: &Value) -> Vec<String> {
    let env = file(object, ENV).expect("the file of variables");
    let line = env.lines().find_map(|line| line.strip_prefix("no_proxy='")).expect("no_proxy");
    line.trim_end_matches('\'').split(',').map(str::to_owned).collect()
}

#[test]
fn paths_are_those_that_cluster_api_calls() {
    for (path, hook) in [
        ("/hooks.runtime.cluster.x-k8s.io/v1alpha1/discovery", Some(Hook::Discovery)),
        (
            "/hooks.runtime.cluster.x-k8s.io/v1alpha1/discovervariables/discover-variables",
            Some(Hook::DiscoverVariables),
        ),
        (
            "/hooks.runtime.cluster.x-k8s.io/v1alpha1/generatepatches/generate-patches",
            Some(Hook::GeneratePatches),
        ),
        (
            "/hooks.runtime.cluster.x-k8s.io/v1alpha1/validatetopology/validate-topology",
            Some(Hook::ValidateTopology),
        ),
        ("/hooks.runtime.cluster.x-k8s.io/v1alpha1/generatepatches/other", None),
        ("/hooks.runtime.cluster.x-k8s.io/v1alpha1/generatepatches", None),
        ("/hooks.runtime.cluster.x-k8s.io/v1alpha1/discovery/x", None),
        ("/hooks.runtime.cluster.x-k8s.io/v1alpha1", None),
        ("/hooks.runtime.cluster.x-k8s.io/v1alpha2/discovery", None),
        ("/mutate/pods", None),
    ] {
        assert_eq!(Hook::at(path), hook, "{path}");
    }
}

#[test]
fn discovery_tells_of_three_handlers_that_must_not_be_ignored() {
    let request = json!({"apiVersion": API_VERSION, "kind": "DiscoveryRequest"});
    let response = called(Hook::Discovery, &request, &[]);
    let handlers = response["handlers"].as_array().unwrap();
    let found: Vec<_> =
        handlers.iter().map(|handler| handler["requestHook"]["hook"].as_str().unwrap()).collect();
    assert_eq!(found, ["DiscoverVariables", "GeneratePatches", "ValidateTopology"]);
    for handler in handlers {
        assert_eq!((&handler["failurePolicy"], &handler["timeoutSeconds"]), (&json!("Fail"), &json!(10)));
    }
    let request =
        json!({"apiVersion": API_VERSION, "kind": "DiscoverVariablesRequest", "settings": {"x": "y"}});
    let response = called(Hook::DiscoverVariables, &request, &[]);
    assert_eq!(response["variables"][0]["name"], "proxy");
    let properties = response["variables"][0]["schema"]["openAPIV3Schema"]["properties"].as_object().unwrap();
    assert!(
        ["httpProxy", "httpsProxy", "noProxy", "presets"].iter().all(|name| properties.contains_key(*name))
    );
}

#[test]
fn every_machine_of_a_cluster_gets_the_presets_and_what_the_cluster_says() {
    let objects = generated(None, &corporate(), &json!({}));
    let control_plane = &objects["u-2"];
    let env = file(control_plane, ENV).unwrap();
    assert!(env.contains("http_proxy='http://me:a%40b@proxy.corp.example:3128'"), "{env}");
    let list = no_proxy(control_plane);
    for entry in [
        "localhost",
        ".corp.example",
        ".svc",
        ".corp.local",
        "10.96.0.0/16",
        "10.96.0.1",
        "10.244.0.0/16",
        "10.20.0.10",
        "vcenter.corp.example",
    ] {
        assert!(list.iter().any(|own| own == entry), "{entry} is not in {list:?}");
    }
    // What was there stays, behind ours; workers get the same.
    assert_eq!(spec(control_plane)["files"][0]["path"], "/etc/motd");
    assert_eq!(spec(control_plane)["preKubeadmCommands"], json!([APPLY, "hostname web"]));
    for worker in ["u-3", "u-4"] {
        assert_eq!(file(&objects[worker], ENV), Some(env.clone()));
        assert_eq!(spec(&objects[worker])["preKubeadmCommands"], json!([APPLY]));
    }
    assert_eq!(objects["u-1"], items()[0]["object"]);
}

#[test]
fn the_answer_depends_on_the_cluster_and_not_on_the_order_or_the_uids_of_templates() {
    let mut other = items();
    other.reverse();
    for (number, item) in other.iter_mut().enumerate() {
        item["uid"] = format!("other-{}", 3 - number).into();
    }
    let answer = |items: &[Value]| {
        let request = request(Hook::GeneratePatches, None, items, &json!({}));
        patched(items, &called(Hook::GeneratePatches, &request, &corporate()))
            .into_values()
            .collect::<Vec<_>>()
    };
    assert_eq!(answer(&items()), answer(&other));
    // Templates that are patched already are as they have to be.
    let mut again = items();
    for (item, object) in again.iter_mut().zip(answer(&items())) {
        item["object"] = object;
    }
    let request = request(Hook::GeneratePatches, None, &again, &json!({}));
    assert_eq!(called(Hook::GeneratePatches, &request, &corporate())["items"], json!([]));
}

#[test]
fn the_variable_goes_before_presets_and_adds_to_their_list() {
    let proxy = json!({"httpProxy": "http://other:3128", "noProxy": ["registry.example"]});
    let objects = generated(Some(proxy), &corporate(), &json!({}));
    let env = file(&objects["u-2"], ENV).unwrap();
    assert!(
        env.contains("http_proxy='http://other:3128'") && env.contains("https_proxy='http://other:3128'"),
        "{env}"
    );
    let list = no_proxy(&objects["u-2"]);
    assert!(
        [".corp.example", "registry.example", ".svc"].iter().all(|entry| list.iter().any(|own| own == entry))
    );

    // Without any preset, hosts still reach their own cluster.
    let proxy = json!({"httpProxy": "http://p:1", "httpsProxy": "http://q:1"});
    let objects = generated(Some(proxy), &[], &json!({}));
    let env = file(&objects["u-2"], ENV).unwrap();
    assert!(env.contains("https_proxy='http://q:1'"), "{env}");
    assert!(no_proxy(&objects["u-2"]).iter().any(|entry| entry == "10.20.0.10"));

    // One deployment of machines has its own.
    let mut items = items();
    items[2]["variables"] = json!([{"name": VARIABLE, "value": {"presets": []}}]);
    let request = request(Hook::GeneratePatches, None, &items, &json!({}));
    let objects = patched(&items, &called(Hook::GeneratePatches, &request, &corporate()));
    assert_eq!((file(&objects["u-3"], ENV), file(&objects["u-4"], ENV).is_some()), (None, true));
}

#[test]
fn presets_are_chosen_by_name() {
    let mut presets = corporate();
    let env = json!([{"name": "http_proxy", "value": "http://special:1"}]);
    presets.push(preset("special", &json!({"env": env, "podSelector": {"matchLabels": {"a": "b"}}})));
    let of = |names: Value| generated(Some(json!({"presets": names})), &presets, &json!({}));
    assert!(file(&of(json!(["special"]))["u-2"], ENV).unwrap().contains("http://special:1"));
    assert_eq!(of(json!([]))["u-2"], items()[1]["object"]);
    assert_eq!(
        failure(Hook::GeneratePatches, Some(json!({"presets": ["nobody"]})), &items(), &json!({})),
        "reach: there is no ClusterPodPreset nobody: expected one of corporate"
    );
}

#[test]
fn settings_are_the_options_of_the_command_line() {
    let settings = json!({"unit": "containerd, kubelet", "os": "profile", "static-pods": "explicit", "without": "vcenter"});
    let objects = generated(None, &corporate(), &settings);
    let paths = |object: &Value| -> Vec<String> {
        let files = spec(object)["files"].as_array().unwrap();
        files.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
    };
    for path in ["/etc/systemd/system/kubelet.service.d/10-reach-proxy.conf", "/etc/profile.d/reach-proxy.sh"]
    {
        assert!(paths(&objects["u-3"]).iter().any(|own| own == path), "{path}");
    }
    assert!(!no_proxy(&objects["u-2"]).iter().any(|entry| entry == "vcenter.corp.example"));
    let extra_envs =
        |object: &Value| spec(object)["clusterConfiguration"]["scheduler"]["extraEnvs"].is_array();
    assert_eq!((extra_envs(&objects["u-2"]), extra_envs(&objects["u-3"])), (true, false));
    assert_eq!(
        failure(Hook::GeneratePatches, None, &items(), &json!({"units": "a", "unit": "contained"})),
        "reach: settings, unit: expected one of containerd, crio, docker, kubelet; settings, units: expected one of unit, \
         os, static-pods, ca-certificates, node-ranges, without"
    );
}

#[test]
fn certificates_stand_in_the_settings() {
    let made = crate::certs::self_made(&["localhost".to_owned()]).unwrap();
    let objects = generated(None, &corporate(), &json!({"ca-certificates": made.ca_pem}));
    let content = file(&objects["u-3"], "/etc/reach/ca/ca.crt").expect("the certificate");
    assert!(content.contains(made.ca_pem.trim()), "{content}");
    assert_eq!(
        failure(Hook::GeneratePatches, None, &items(), &json!({"ca-certificates": "/etc/ssl/corporate.pem"})),
        "reach: settings, ca-certificates: expected certificates in PEM and nothing else"
    );
}

#[test]
fn what_cannot_be_done_is_a_failure_that_names_the_place_and_shows_no_value() {
    let of = |proxy: Value| failure(Hook::GeneratePatches, Some(proxy), &items(), &json!({}));
    assert_eq!(
        of(json!({"httpProxy": "me:hunter2@proxy:3128"})),
        "reach: variable proxy, httpProxy: expected a URL with a scheme, as in http://proxy.corp.example:3128"
    );
    assert_eq!(of(json!({"noProxy": "hunter2"})), "reach: variable proxy, noProxy: expected a sequence");
    assert_eq!(
        of(json!({"httpproxy": "hunter2"})),
        "reach: variable proxy, httpproxy: expected one of `httpProxy`, `httpsProxy`, `noProxy`, `presets`"
    );

    let mut taken = items();
    taken[1]["object"]["spec"]["template"]["spec"]["kubeadmConfigSpec"]["files"][0]["path"] = ENV.into();
    let message = failure(Hook::GeneratePatches, None, &taken, &json!({}));
    assert!(
        message.starts_with(
            "reach: KubeadmControlPlaneTemplate classes/cp: spec.template.spec.kubeadmConfigSpec.files[0]: /etc/reach/proxy.env is there already"
        ),
        "{message}"
    );
    let mut old = items();
    old[1]["object"]["apiVersion"] = "controlplane.cluster.x-k8s.io/v1alpha4".into();
    assert_eq!(
        failure(Hook::GeneratePatches, None, &old, &json!({})),
        "reach: KubeadmControlPlaneTemplate classes/cp: apiVersion: too old a version v1alpha4: expected \
         controlplane.cluster.x-k8s.io/v1beta1 or controlplane.cluster.x-k8s.io/v1beta2"
    );
    let mut wrong = request(Hook::GeneratePatches, None, &items(), &json!({}));
    wrong["variables"][0]["value"]["cluster"]["network"]["pods"] = json!(["10.0.0.0/99"]);
    let response = called(Hook::GeneratePatches, &wrong, &corporate());
    let message = response["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "reach: Cluster prod/web, spec.clusterNetwork.pods.cidrBlocks[0]: expected a network"
        ),
        "{message}"
    );
}

#[test]
fn what_is_no_request_is_no_call() {
    let refused = |body: &str| answer(Hook::GeneratePatches, body.as_bytes(), &[]).unwrap_err();
    for body in
        ["", "[]", "{\"kind\": 1}", "{\"apiVersion\": \"x/v1\", \"kind\": \"GeneratePatchesRequest\"}"]
    {
        assert!(refused(body).starts_with("expected a GeneratePatchesRequest"), "{body}");
    }
    let other = request(Hook::ValidateTopology, None, &[], &json!({})).to_string();
    assert!(refused(&other).starts_with("expected a GeneratePatchesRequest of hooks"));
    let two = request(Hook::GeneratePatches, None, &[], &json!({})).to_string().repeat(2);
    assert_eq!(refused(&two), "expected a GeneratePatchesRequest: expected the end of the document");
    // A cluster without templates is none that could be patched.
    let none = called(Hook::GeneratePatches, &request(Hook::GeneratePatches, None, &[], &json!({})), &[]);
    assert_eq!(none["items"], json!([]));
}

#[test]
fn a_later_patch_that_takes_the_files_away_is_found() {
    let mut items = items();
    let validated = |items: &[Value], proxy: Option<Value>| {
        let request = request(Hook::ValidateTopology, proxy, items, &json!({}));
        called(Hook::ValidateTopology, &request, &corporate())["message"].as_str().map(str::to_owned)
    };
    // Nothing says that there has to be a proxy: the patch is perhaps not of this class's cluster.
    assert_eq!(validated(&items, None), None);
    for (item, object) in items.iter_mut().zip(generated(None, &corporate(), &json!({})).into_values()) {
        item["object"] = object;
        item.as_object_mut().unwrap().remove("uid");
    }
    assert_eq!(validated(&items, None), None);
    assert_eq!(validated(&items, Some(json!({"noProxy": ["more.example"]}))), None);
    items[1]["object"]["spec"]["template"]["spec"]["kubeadmConfigSpec"]["files"] = json!([]);
    assert_eq!(
        validated(&items, None).unwrap(),
        "reach: KubeadmControlPlaneTemplate classes/cp: spec.template.spec.kubeadmConfigSpec.files: the files of reach are \
         gone: a patch behind that of reach replaces the list: move the patch of reach to the end of spec.patches of the \
         ClusterClass"
    );
    items[1]["object"]["spec"]["template"]["spec"]["kubeadmConfigSpec"]["preKubeadmCommands"] = json!([]);
    assert_eq!(validated(&items, None), None);
    assert!(validated(&items, Some(json!({}))).is_some());
}

#[test]
fn the_documentation_has_every_handler_setting_and_field() {
    let text = include_str!("../../../docs/runtime-extension.md");
    for hook in Hook::ALL.into_iter().filter(|hook| *hook != Hook::Discovery) {
        assert!(text.contains(&format!("Extension: {}.reach\n", hook.handler())), "{}", hook.name());
    }
    for name in ["unit", "os", "static-pods", "ca-certificates", "node-ranges", "without"] {
        assert!(text.contains(&format!("`{name}`")), "{name}");
        let read = Settings::read(&BTreeMap::from([(name.to_owned(), "none of these".to_owned())]));
        assert!(!read.err().expect("an error")[0].contains("expected one of unit"), "{name}");
    }
    let variable = variable();
    let properties = variable["schema"]["openAPIV3Schema"]["properties"].as_object().unwrap();
    for name in properties.keys() {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
}

/// Pointers to everything in a value.
fn pointers(value: &Value, pointer: &str, out: &mut Vec<String>) {
    out.push(pointer.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| pointers(value, &format!("{pointer}/{name}"), out));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| pointers(value, &format!("{pointer}/{index}"), out));
        }
        _ => {}
    }
}

proptest! {
    /// Whatever stands in a request, it is refused, or answered with patches that apply.
    #[test]
    fn no_request_is_too_odd(
        choices in proptest::collection::vec((any::<proptest::sample::Index>(), 0_usize..8), 1..3),
        explicit in any::<bool>(),
    ) {
        let settings = if explicit { json!({"static-pods": "explicit"}) } else { json!({}) };
        let mut request = request(Hook::GeneratePatches, Some(json!({"noProxy": ["a"]})), &items(), &settings);
        for (choice, kind) in choices {
            let mut places = Vec::new();
            pointers(&request, "", &mut places);
            let odd = [json!(null), json!({}), json!([]), json!(""), json!("${X}"), json!([1]), json!({"a": "b"}), json!(1)];
            let place: &String = choice.get(&places);
            *request.pointer_mut(place).unwrap() = odd[kind].clone();
        }
        let Ok(answer) = answer(Hook::GeneratePatches, request.to_string().as_bytes(), &corporate()) else {
            return Ok(());
        };
        let response: Value = serde_json::from_slice(&answer.body).unwrap();
        let items = request["items"].as_array().map_or(&[][..], Vec::as_slice);
        // Of two items with one uid nobody can tell which one a patch is for.
        let uids: BTreeSet<_> = items.iter().map(|item| item["uid"].as_str().unwrap_or_default()).collect();
        if response["status"] == "Success" && uids.len() == items.len() {
            patched(items, &response);
        }
    }
}

#[test]
fn a_validation_tells_of_a_kubernetes_that_reads_no_extra_envs() {
    let settings = json!({"static-pods": "explicit"});
    let mut request = request(Hook::ValidateTopology, None, &items(), &settings);
    let told = |request: &Value| {
        let generated = {
            let mut generate = request.clone();
            generate["kind"] = format!("{}Request", Hook::GeneratePatches.name()).into();
            called(Hook::GeneratePatches, &generate, &corporate())
        };
        let mut after = request.clone();
        let patched = patched(&items(), &generated);
        for item in after["items"].as_array_mut().unwrap() {
            item["object"] = patched[item["uid"].as_str().unwrap()].clone();
        }
        answer(Hook::ValidateTopology, after.to_string().as_bytes(), &corporate()).unwrap().notes
    };
    assert!(!told(&request).iter().any(|finding| finding.contains("before 1.31")));
    request["variables"][0]["value"]["cluster"]["topology"]["version"] = "v1.30.4".into();
    assert!(told(&request).iter().any(|finding| finding.contains("before 1.31")));
}

#[test]
fn a_file_that_is_too_long_offers_no_secret_of_which_no_hook_knows() {
    let long: Vec<String> =
        (0..4000).map(|number| format!("h{}.corp.example", number * 7919 % 4001)).collect();
    let env = json!([
        {"name": "http_proxy", "value": "http://p:1", "mergeStrategy": "Replace"},
        {"name": "no_proxy", "value": long.join(","), "mergeStrategy": "Merge"},
    ]);
    let request = request(Hook::GeneratePatches, None, &items(), &json!({}));
    let response = called(Hook::GeneratePatches, &request, &[preset("long", &json!({"env": env}))]);
    let message = response["message"].as_str().unwrap();
    assert!(message.contains("of which a KubeadmConfig takes 10240"), "{message}");
    assert!(!message.contains("--env-secret"), "{message}");
}
