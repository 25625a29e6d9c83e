use super::*;
use crate::host::node::{Options, System};
use crate::inject::preset::ProxyVariable;

const SPEC: &str = "spec.kubeadmConfigSpec";

fn settings(list: &str) -> Vec<Setting> {
    [(ProxyVariable::Http, "http://me:a%40b@p:1"), (ProxyVariable::No, list)]
        .map(|(proxy, value)| Setting { proxy, value: value.to_owned(), secret: false })
        .into()
}

fn node(list: &str) -> Node {
    Node::new(&settings(list), &Options::default()).unwrap()
}

fn wanted(node: &Node) -> Wanted<'_> {
    Wanted { node, secret: None, variables: &[], extra_envs: &[] }
}

fn control_plane(spec: &Value) -> Value {
    json!({"kind": "KubeadmControlPlane", "metadata": {"name": "web"}, "spec": {"kubeadmConfigSpec": spec}})
}

/// The object with the operations applied, by a library that is not ours.
fn applied(object: &Value, operations: &[Operation]) -> Value {
    let operation = |operation: &Operation| match operation {
        Operation::Add { path, value } => json!({"op": "add", "path": path, "value": value}),
        Operation::Replace { path, value } => json!({"op": "replace", "path": path, "value": value}),
        Operation::Remove { path } => json!({"op": "remove", "path": path}),
    };
    let operations: Vec<Value> = operations.iter().map(operation).collect();
    let operations: json_patch::Patch = serde_json::from_value(operations.into()).unwrap();
    let mut object = object.clone();
    json_patch::patch(&mut object, &operations).unwrap();
    object
}

fn patched(object: &Value, wanted: &Wanted<'_>) -> Value {
    let new = applied(object, &patch(object, SPEC, wanted).unwrap());
    // Twice is once.
    assert_eq!(patch(&new, SPEC, wanted), Ok(Vec::new()));
    new
}

fn errors(object: &Value, wanted: &Wanted<'_>) -> Vec<String> {
    patch(object, SPEC, wanted).unwrap_err().iter().map(ToString::to_string).collect()
}

fn paths(object: &Value) -> Vec<&str> {
    let files = object["spec"]["kubeadmConfigSpec"]["files"].as_array();
    files.into_iter().flatten().filter_map(|file| file["path"].as_str()).collect()
}

const OURS: [&str; 3] = [
    "/etc/reach/proxy.env",
    "/etc/systemd/system/containerd.service.d/10-reach-proxy.conf",
    "/etc/reach/apply-proxy.sh",
];

#[test]
fn files_come_last_and_the_command_first() {
    let own = json!({"path": "/etc/motd", "content": "hello"});
    let object = control_plane(&json!({"files": [own], "preKubeadmCommands": ["apt-get update"]}));
    let node = node("localhost");
    let new = patched(&object, &wanted(&node));
    assert_eq!(paths(&new), ["/etc/motd", OURS[0], OURS[1], OURS[2]]);
    let spec = &new["spec"]["kubeadmConfigSpec"];
    assert_eq!(spec["preKubeadmCommands"], json!([node::APPLY, "apt-get update"]));
    assert_eq!(content(&spec["files"][1]).as_deref(), Some(node.files[0].content.as_str()));
    for object in [control_plane(&json!({})), control_plane(&Value::Null), json!({"kind": "K"})] {
        let new = patched(&object, &wanted(&node));
        assert_eq!(paths(&new), OURS);
        assert_eq!(new["spec"]["kubeadmConfigSpec"]["preKubeadmCommands"], json!([node::APPLY]));
    }
}

#[test]
fn what_is_of_reach_is_replaced_or_taken_away_and_nothing_else() {
    let object = control_plane(&json!({
        "files": [{"path": "/etc/a", "content": "a"}],
        "preKubeadmCommands": ["first"],
        "format": "cloud-config",
    }));
    let (old, new) = (node("localhost"), node("localhost,web"));
    let mut with_old = patched(&object, &wanted(&old));
    with_old["spec"]["kubeadmConfigSpec"]["files"].as_array_mut().unwrap().push(json!({"path": "/etc/z"}));
    let operations = patch(&with_old, SPEC, &wanted(&new)).unwrap();
    // The others are as they have to be.
    assert_eq!(operations.len(), 1);
    assert_eq!(operations[0].path(), "/spec/kubeadmConfigSpec/files/1");
    let nothing = Node::default();
    let back = patched(&with_old, &wanted(&nothing));
    assert_eq!(paths(&back), ["/etc/a", "/etc/z"]);
    assert_eq!(back["spec"]["kubeadmConfigSpec"]["preKubeadmCommands"], json!(["first"]));
    // With a long list the file is compressed, and still known.
    let long: Vec<String> = (0..400).map(|number| format!("host-{number}.corp.example")).collect();
    let long = node(&long.join(","));
    let packed = patched(&with_old, &wanted(&long));
    assert_eq!(packed["spec"]["kubeadmConfigSpec"]["files"][1]["encoding"], "gzip+base64");
    assert_eq!(patched(&packed, &wanted(&old))["spec"], with_old["spec"]);
    // A command that somebody has moved stays where it is.
    let mut moved = with_old;
    moved["spec"]["kubeadmConfigSpec"]["preKubeadmCommands"] = json!(["first", node::APPLY]);
    assert_eq!(patch(&moved, SPEC, &wanted(&old)), Ok(Vec::new()));
}

#[test]
fn of_a_compressed_file_no_more_is_read_than_a_manifest_can_have() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &vec![b'x'; 10_000_000]).unwrap();
    let packed = base64_simd::STANDARD.encode_to_string(encoder.finish().unwrap());
    let file = json!({"path": "/etc/a", "encoding": "gzip+base64", "content": packed});
    assert_eq!(content(&file).map(|content| content.len()), Some(1024 * 1024));
}

#[test]
fn a_file_of_somebody_else_at_a_path_of_reach_is_told() {
    let own = json!({"path": OURS[0], "content": "HTTP_PROXY=http://me:s3cret@p:1"});
    let object = control_plane(&json!({"files": [own]}));
    let node = node("localhost");
    assert_eq!(
        errors(&object, &wanted(&node)),
        [
            "spec.kubeadmConfigSpec.files[0]: /etc/reach/proxy.env is there already and not written by reach, which writes the same: take it away, or leave reach host patch out"
        ]
    );
}

#[test]
fn each_file_that_is_taken_names_the_option_that_asks_for_it() {
    let options =
        Options { system: vec![System::Profile, System::Apt, System::Sudoers], ..Options::default() };
    let node = Node::new(&settings("localhost"), &options).unwrap();
    for (path, option) in [
        (OURS[1], "its service of --unit"),
        ("/etc/profile.d/reach-proxy.sh", "--os profile"),
        ("/etc/apt/apt.conf.d/95reach-proxy", "--os apt"),
        ("/etc/sudoers.d/reach-proxy", "--os sudoers"),
    ] {
        assert!(node.files.iter().any(|file| file.path == path), "{path}");
        let object = control_plane(&json!({"files": [{"path": path, "content": "mine"}]}));
        let error = errors(&object, &wanted(&node)).join("; ");
        assert!(
            error.starts_with("spec.kubeadmConfigSpec.files[0]: ") && error.contains(option),
            "{path}: {error}"
        );
    }
}

#[test]
fn a_field_of_another_type_is_told_with_what_was_expected() {
    let node = node("localhost");
    for (spec, expected) in [
        (json!([]), "spec.kubeadmConfigSpec: expected a mapping, found a list"),
        (json!({"files": "${FILES}"}), "spec.kubeadmConfigSpec.files: expected a list, found a string"),
        (
            json!({"preKubeadmCommands": {}}),
            "spec.kubeadmConfigSpec.preKubeadmCommands: expected a list, found a mapping",
        ),
    ] {
        assert_eq!(errors(&control_plane(&spec), &wanted(&node)), [expected]);
    }
    let object = json!({"spec": "${SPEC}"});
    assert_eq!(errors(&object, &wanted(&node)), ["spec: expected a mapping, found a string"]);
}

#[test]
fn what_is_too_long_for_ignition_is_an_error_that_offers_a_secret() {
    let long: Vec<String> = (0..400).map(|number| format!("host-{number}.corp.example")).collect();
    let node = node(&long.join(","));
    let object = control_plane(&json!({"format": "ignition"}));
    let error = errors(&object, &wanted(&node)).remove(0);
    assert!(error.contains("the longest value is NO_PROXY") && error.contains("--env-secret"), "{error}");
    let new = patched(&object, &Wanted { secret: Some("web-proxy-env"), ..wanted(&node) });
    let first = &new["spec"]["kubeadmConfigSpec"]["files"][0];
    assert_eq!(first["contentFrom"], json!({"secret": {"name": "web-proxy-env", "key": "proxy.env"}}));
    assert_eq!((first.get("content"), &first["encoding"]), (None, &json!("base64")));
    // What has no values stays where it is.
    let second = &new["spec"]["kubeadmConfigSpec"]["files"][1];
    assert!(second["content"].is_string() && second.get("contentFrom").is_none(), "{second}");
}

#[test]
fn plain_text_may_have_as_many_characters_as_the_field_takes() {
    let file = |characters: usize| File {
        path: OURS[0].to_owned(),
        mode: 0o600,
        content: "é".repeat(characters),
        has_values: true,
    };
    assert!(render::plain(&file(render::LONGEST_CONTENT)).is_ok());
    assert!(render::plain(&file(render::LONGEST_CONTENT + 1)).is_err());
}

#[test]
fn a_variable_of_clusterctl_stands_in_plain_text() {
    let node = node(&format!("localhost,{}", placeholder(0)));
    let variables = ["${CONTROL_PLANE_ENDPOINT_IP:=10.0.0.1}".to_owned()];
    let new = patched(&control_plane(&json!({})), &Wanted { variables: &variables, ..wanted(&node) });
    let files = &new["spec"]["kubeadmConfigSpec"]["files"];
    assert_eq!(files[0].get("encoding"), None);
    let text = files[0]["content"].as_str().unwrap();
    assert!(text.contains("no_proxy='localhost,${CONTROL_PLANE_ENDPOINT_IP:=10.0.0.1}'\n"), "{text}");
    // What has none of them is as always.
    assert_eq!(files[1]["encoding"], "base64");

    // Each has its own place.
    let two = ["${FIRST}".to_owned(), "${SECOND}".to_owned()];
    assert_eq!(fill(&format!("{} {}", placeholder(1), placeholder(0)), &two), "${SECOND} ${FIRST}");

    let braces = [
        Setting { proxy: ProxyVariable::Http, value: "http://a${B}@p:1".to_owned(), secret: false },
        Setting { proxy: ProxyVariable::No, value: placeholder(0), secret: false },
    ];
    let node = Node::new(&braces, &Options::default()).unwrap();
    let error = errors(&control_plane(&json!({})), &Wanted { variables: &variables, ..wanted(&node) });
    assert!(error[0].contains("has ${ in it") && error[0].contains("clusterctl would replace"), "{error:?}");
    // In base64 nobody sees it.
    patched(&control_plane(&json!({})), &wanted(&node));
}

#[test]
fn the_secret_has_the_file_and_is_known_again() {
    let node = node(&format!("localhost,{}", placeholder(0)));
    let variables = ["${VIP}".to_owned()];
    let made = secret(&node, "web-proxy-env", "prod", &variables).unwrap();
    assert!(is_secret_of_reach(&made));
    assert_eq!(made["metadata"]["namespace"], "prod");
    let text = made["stringData"]["proxy.env"].as_str().unwrap();
    assert!(text.starts_with(MARK) && text.contains(",${VIP}'"));
    let plain = secret(&node, "web-proxy-env", "", &[]).unwrap();
    assert!(is_secret_of_reach(&plain) && plain["metadata"].get("namespace").is_none());
    assert!(!is_secret_of_reach(&json!({"kind": "Secret", "data": {"proxy.env": "eA=="}})));
}

#[test]
fn jinja_finds_nothing_in_user_data_that_comes_from_a_secret() {
    let proxy = "http://me:a{{b}}{%c%}{#d@p:1";
    let settings = [(ProxyVariable::Http, proxy), (ProxyVariable::No, "localhost")]
        .map(|(proxy, value)| Setting { proxy, value: value.to_owned(), secret: true });
    let node = Node::new(&settings, &Options::default()).unwrap();
    let made = secret(&node, "web-proxy-env", "", &[]).unwrap();
    let item =
        patched(&control_plane(&json!({})), &Wanted { secret: Some("web-proxy-env"), ..wanted(&node) });
    let mut item = item["spec"]["kubeadmConfigSpec"]["files"][0].clone();
    // What Cluster API makes of it.
    let value = made["data"]["proxy.env"].as_str().unwrap();
    let value = String::from_utf8(base64_simd::STANDARD.decode_to_vec(value).unwrap()).unwrap();
    assert!(!["{{", "{%", "{#"].iter().any(|opener| value.contains(opener)), "{value}");
    item.as_object_mut().unwrap().remove("contentFrom");
    item["content"] = value.into();
    assert_eq!(content(&item).as_deref(), Some(node.files[0].content.as_str()));

    // Where clusterctl has to find its variables, the text is plain, and said to be.
    let variables = ["${VIP}".to_owned()];
    let node = self::node(&placeholder(0));
    let wanted = Wanted { secret: Some("web-proxy-env"), variables: &variables, ..wanted(&node) };
    let item = patched(&control_plane(&json!({})), &wanted);
    assert_eq!(item["spec"]["kubeadmConfigSpec"]["files"][0].get("encoding"), None);
    let settings = [(ProxyVariable::Http, proxy.to_owned()), (ProxyVariable::No, placeholder(0))]
        .map(|(proxy, value)| Setting { proxy, value, secret: true });
    let node = Node::new(&settings, &Options::default()).unwrap();
    let error = secret(&node, "web-proxy-env", "", &variables).unwrap_err()[0].to_string();
    assert!(error.contains("{{ in it") && !error.contains("me:a"), "{error}");
}

#[test]
fn names_that_cluster_api_gives_its_own_secrets_are_known() {
    for (name, cluster) in [
        ("web-ca", Some("web")),
        ("web-1-kubeconfig", Some("web-1")),
        ("web-apiserver-etcd-client", Some("web")),
        ("web-proxy-env", None),
        ("ca", None),
        ("webca", None),
    ] {
        assert_eq!(secret_of_cluster_api(name), cluster, "{name}");
    }
}

#[test]
fn static_pods_get_variables_that_are_known_again_by_an_annotation() {
    let node = node("localhost");
    let settings = settings("localhost");
    let explicit = Wanted { extra_envs: &settings, ..wanted(&node) };
    // One without a name is a mistake, and not ours to mend.
    let own = json!([{"name": "GODEBUG", "value": "x"}, {"value": "y"}]);
    let object = control_plane(&json!({"clusterConfiguration": {"apiServer": {"extraEnvs": own}}}));
    let new = patched(&object, &explicit);
    let names = |object: &Value, component: &str| -> Vec<String> {
        let list = &object["spec"]["kubeadmConfigSpec"]["clusterConfiguration"][component]["extraEnvs"];
        list.as_array()
            .into_iter()
            .flatten()
            .map(|item| item["name"].as_str().unwrap_or("?").to_owned())
            .collect()
    };
    let ours = ["http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"];
    assert_eq!(names(&new, "apiServer"), [&["GODEBUG", "?"], &ours[..]].concat());
    assert_eq!(
        (names(&new, "controllerManager"), names(&new, "scheduler")),
        (ours.map(str::to_owned).into(), ours.map(str::to_owned).into())
    );
    assert_eq!(new["metadata"]["annotations"][EXTRA_ENVS], ours.join(","));
    // Without a configuration too.
    assert_eq!(names(&patched(&control_plane(&json!({})), &explicit), "scheduler"), ours);
    // With other values they are the same variables.
    let other = self::settings("localhost,web");
    let changed = patched(&new, &Wanted { extra_envs: &other, ..wanted(&node) });
    assert_eq!(names(&changed, "scheduler"), ours);
    let scheduler = &changed["spec"]["kubeadmConfigSpec"]["clusterConfiguration"]["scheduler"];
    assert_eq!(scheduler["extraEnvs"][3]["value"], "localhost,web");
    // Taken away again.
    let back = patched(&new, &wanted(&node));
    assert_eq!(names(&back, "apiServer"), ["GODEBUG", "?"]);
    assert!(names(&back, "scheduler").is_empty());
    assert!(back["metadata"]["annotations"].get(EXTRA_ENVS).is_none());
    // Where nothing is left of what it is about, too.
    let node_of_nothing = Node::default();
    let only_annotated = json!({"metadata": {"annotations": {EXTRA_ENVS: "http_proxy"}}});
    let back = patched(&only_annotated, &wanted(&node_of_nothing));
    assert_eq!(back, json!({"metadata": {"annotations": {}}}));

    let object = json!({"spec": {"kubeadmConfigSpec": {}}});
    assert_eq!(patched(&object, &explicit)["metadata"]["annotations"][EXTRA_ENVS], ours.join(","));
    let mut object = control_plane(&json!({"clusterConfiguration": {"scheduler": []}}));
    object["metadata"]["annotations"] = "x".into();
    assert_eq!(
        errors(&object, &explicit),
        [
            "metadata.annotations: expected a mapping, found a string",
            "spec.kubeadmConfigSpec.clusterConfiguration.scheduler: expected a mapping, found a list",
        ]
    );

    let taken = json!([{"name": "NO_PROXY", "value": "mine"}]);
    let object = control_plane(&json!({"clusterConfiguration": {"scheduler": {"extraEnvs": taken}}}));
    let error = errors(&object, &explicit).remove(0);
    assert!(
        error.starts_with(
            "spec.kubeadmConfigSpec.clusterConfiguration.scheduler.extraEnvs[0]: NO_PROXY is there already"
        ),
        "{error}"
    );
}

#[test]
fn a_secret_has_a_name_that_kubernetes_takes() {
    let longest = "a".repeat(253);
    for name in ["a", "web-proxy-env", "a.b-1.2", "${CLUSTER_NAME}-env", "p${A:=x y}.${B}", &longest] {
        assert!(is_secret_name(name), "{name}");
    }
    let longer = "a".repeat(254);
    for name in [
        "",
        "Shop_Proxy",
        "shop_proxy",
        "-env",
        "env-",
        "a..b",
        ".a",
        "a-.b",
        "a b",
        "ä",
        "${A}-",
        "${A}_",
        "{cluster}",
        "$A",
        &longer,
    ] {
        assert!(!is_secret_name(name), "{name}");
    }
}
