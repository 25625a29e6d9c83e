use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The operations of a JSON object from pointers to values that are added, or of a list of them as in
/// RFC 6902.
fn operations(operations: &Value) -> Vec<Operation> {
    let operation = |operation: &Value| {
        let path = operation["path"].as_str().expect("a path");
        match operation["op"].as_str() {
            Some("add") => Operation::add(path, operation["value"].clone()),
            Some("replace") => Operation::replace(path, operation["value"].clone()),
            Some("remove") => Operation::remove(path),
            _ => panic!("no operation: {operation}"),
        }
    };
    match operations {
        Value::Object(members) => {
            members.iter().map(|(path, value)| Operation::add(path, value.clone())).collect()
        }
        Value::Array(items) => items.iter().map(operation).collect(),
        _ => panic!("no operations: {operations}"),
    }
}

fn edit(text: &str, operations: &[Operation]) -> Edited {
    let documents = documents(text);
    assert_eq!(documents.len(), 1, "{text:?}");
    documents[0].edit(operations).expect("it can be edited")
}

/// The text after operations that must be possible in place.
#[track_caller]
fn in_place(before: &str, operations: &Value) -> String {
    let edited = edit(before, &self::operations(operations));
    assert!(!edited.reemitted, "written anew:\n{}", edited.text);
    edited.text
}

/// The text after operations that are not possible in place.
#[track_caller]
fn anew(before: &str, operations: &Value) -> String {
    let edited = edit(before, &self::operations(operations));
    assert!(edited.reemitted, "edited in place:\n{}", edited.text);
    edited.text
}

#[track_caller]
fn read(text: &str) -> Value {
    documents(text)[0].read().expect("it can be read").unwrap_or_default()
}

fn read_error(text: &str) -> String {
    documents(text).iter().find_map(|document| document.read().err()).expect("it cannot be read").to_string()
}

const DEPLOYMENT: &str = "\
# The shop.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web   # the name
  annotations: {}
spec:
  replicas: 0x2
  template:
    metadata:
      labels: {app: web, \"tier\": front} # flow
    spec:
      containers:
      - name: web
        image: \"nginx\"
        args: [\"--a\", --b]
        securityContext:
          runAsNonRoot: yes
          mode: 0755
        # nothing else
      # the volumes
      volumes:
      - name: data
        emptyDir: {}

      # the end
      restartPolicy: Always
status: ~
";

#[test]
fn a_deployment_keeps_every_line_that_is_not_concerned() {
    let after = in_place(
        DEPLOYMENT,
        &json!({
            "/metadata/annotations/injected": "true",
            "/spec/template/metadata/labels/mesh": "on",
            "/spec/template/spec/containers/0/env": [{"name": "A", "value": "1"}, {"name": "B"}],
            "/spec/template/spec/containers/-": {"name": "proxy", "ports": [{"containerPort": 1}]},
            "/spec/template/spec/containers/0/args/-": "c",
            "/spec/template/spec/volumes/-": {"name": "run", "emptyDir": {}},
            "/spec/template/spec/volumes/0/emptyDir/medium": "Memory",
            "/spec/template/spec/initContainers": [{"name": "init"}],
            "/spec/template/spec/initContainers/-": {"name": "second"},
        }),
    );
    assert_eq!(
        after,
        "\
# The shop.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web   # the name
  annotations:
    injected: \"true\"
spec:
  replicas: 0x2
  template:
    metadata:
      labels: {app: web, \"tier\": front, mesh: \"on\"} # flow
    spec:
      containers:
      - name: web
        image: \"nginx\"
        args: [\"--a\", --b, c]
        securityContext:
          runAsNonRoot: yes
          mode: 0755
        # nothing else
        env:
        - name: A
          value: \"1\"
        - name: B
      - name: proxy
        ports:
        - containerPort: 1
      # the volumes
      volumes:
      - name: data
        emptyDir:
          medium: Memory
      - name: run
        emptyDir: {}

      # the end
      restartPolicy: Always
      initContainers:
      - name: init
      - name: second
status: ~
"
    );
}

#[test]
fn a_cron_job_with_indented_lists_gets_indented_lists() {
    let after = in_place(
        "\
kind: CronJob
spec:
    schedule: '*/5 * * * *'
    jobTemplate:
        spec:
            template:
                spec:
                    containers:
                      - name: job
                        image: busybox
",
        &json!({
            "/spec/jobTemplate/spec/template/spec/containers/-": {"name": "proxy", "args": ["-v"]},
            "/spec/jobTemplate/spec/template/spec/volumes": [{"name": "a"}],
            "/spec/jobTemplate/spec/template/metadata": {"labels": {"a": "b"}},
        }),
    );
    assert_eq!(
        after,
        "\
kind: CronJob
spec:
    schedule: '*/5 * * * *'
    jobTemplate:
        spec:
            template:
                spec:
                    containers:
                      - name: job
                        image: busybox
                      - name: proxy
                        args:
                          - -v
                    volumes:
                      - name: a
                metadata:
                    labels:
                        a: b
"
    );
}

#[test]
fn the_items_of_a_list_are_edited_each_in_its_place() {
    assert_eq!(
        in_place(
            "\
kind: List
items:
- kind: Pod
  spec:
    containers:
    - name: a
- kind: Pod
  spec: {containers: [{name: b}]}
",
            &json!({
                "/items/0/spec/containers/-": {"name": "x"},
                "/items/1/spec/containers/-": {"name": "z"},
                "/items/1/spec/containers/0/image": "i",
                "/items/-": {"kind": "Pod"},
            }),
        ),
        "\
kind: List
items:
- kind: Pod
  spec:
    containers:
    - name: a
    - name: x
- kind: Pod
  spec: {containers: [{name: b, image: i}, {name: z}]}
- kind: Pod
"
    );
}

/// Tests that a text becomes another in place.
macro_rules! table {
    ($($name:ident: $before:expr, $operations:tt => $after:expr;)*) => {$(
        #[test]
        fn $name() {
            assert_eq!(in_place($before, &json!($operations)), $after);
        }
    )*};
}

table! {
    a_comment_after_the_list_stays_where_it_is:
        "a:\n- 1 # one\n# about b\n\nb: 2\n", {"/a/-": 2}
        => "a:\n- 1 # one\n- 2\n# about b\n\nb: 2\n";
    a_comment_inside_of_an_item_stays_with_it:
        "a:\n- b: 1\n  # c: 2\n# end\n", {"/a/-": {"b": 2}}
        => "a:\n- b: 1\n  # c: 2\n- b: 2\n# end\n";
    blank_lines_stay_in_front_of_what_follows:
        "a:\n  b: 1\n\n\nc: 2\n", {"/a/d": 3} => "a:\n  b: 1\n  d: 3\n\n\nc: 2\n";
    windows_line_breaks_are_kept:
        "a:\r\n- 1\r\nb: {}\r\n", {"/a/-": {"c": 1, "d": 2}, "/b/c": "x"}
        => "a:\r\n- 1\r\n- c: 1\r\n  d: 2\r\nb:\r\n  c: x\r\n";
    a_missing_final_line_break_stays_missing:
        "a:\n- 1", {"/a/-": 2, "/b": "x\ny\n"} => "a:\n- 1\n- 2\nb: \"x\\ny\\n\"";
    an_item_whose_dash_has_its_own_line:
        "a:\n- \n  b: 1\n- # two\n  b: 2\n", {"/a/0/c": 1, "/a/1/c": 2, "/a/-": {"b": 3}}
        => "a:\n- \n  b: 1\n  c: 1\n- # two\n  b: 2\n  c: 2\n- b: 3\n";
    a_wide_dash_is_followed:
        "a:\n-   b: 1\n    c: 2\n", {"/a/0/d": 3, "/a/-": {"b": 4, "c": 5}}
        => "a:\n-   b: 1\n    c: 2\n    d: 3\n-   b: 4\n    c: 5\n";
    an_item_gets_a_key:
        "a:\n  - name: x\n  - name: y\n", {"/a/0/k": [1]}
        => "a:\n  - name: x\n    k:\n      - 1\n  - name: y\n";
    lists_in_lists:
        "a:\n- - 1\n  - 2\n-\n  - 3\n", {"/a/0/-": 4, "/a/1/-": 5, "/a/-": [6, [7, 8]]}
        => "a:\n- - 1\n  - 2\n  - 4\n-\n  - 3\n  - 5\n- - 6\n  - - 7\n    - 8\n";
    a_block_scalar_at_the_end_of_a_mapping:
        "a:\n  b: |\n    x\n\nc: 1\n", {"/a/d": 1} => "a:\n  b: |\n    x\n  d: 1\n\nc: 1\n";
    a_stripped_block_scalar_at_the_end_of_a_mapping:
        "a:\n  b: >-\n    x\n    y\n", {"/a/d": 1} => "a:\n  b: >-\n    x\n    y\n  d: 1\n";
    the_blank_lines_a_block_scalar_keeps_stay_in_it:
        "a:\n  b: |+\n    x\n\n\nc: 1\n", {"/a/d": 1}
        => "a:\n  b: |+\n    x\n\n\n  d: 1\nc: 1\n";
    a_block_scalar_without_content:
        "a:\n  b: |\nc: 1\n", {"/a/d": 1} => "a:\n  b: |\n  d: 1\nc: 1\n";
    a_plain_scalar_of_several_lines:
        "a:\n  b: x\n    y # z\nc: 1\n", {"/a/d": 1, "/c": 2}
        => "a:\n  b: x\n    y # z\n  d: 1\nc: 2\n";
    scalars_are_replaced_in_front_of_their_comment:
        "a: x # 1\nb: \"x\" # 2\nc: 'x\n  y' # 3\nd: x\n  y # 4\ne: 1\n",
        {"/a": "p", "/b": "q", "/c": "yes", "/d": 5, "/e": null}
        => "a: p # 1\nb: q # 2\nc: \"yes\" # 3\nd: 5 # 4\ne: null\n";
    block_scalars_are_replaced:
        "a: | # 1\n  x\n\n  y\n\nb: >-\n  z\nc: 1\n", {"/a": "p", "/b": "q\nr\n"}
        => "a: p # 1\n\nb: |\n  q\n  r\nc: 1\n";
    a_scalar_becomes_a_mapping:
        "a: x # 1\nb: 1\n", {"/a": {"c": 1, "d": [2]}} => "a: # 1\n  c: 1\n  d:\n  - 2\nb: 1\n";
    values_that_are_not_there_are_filled_in:
        "a:\nb: # c\nd: ~\ne: null # f\ng: {}\nh: []\n",
        {"/a": 1, "/b": [2], "/d": {"x": 3}, "/e": "w", "/g/z": 4, "/h/-": 5}
        => "a: 1\nb: # c\n- 2\nd:\n  x: 3\ne: w # f\ng:\n  z: 4\nh:\n- 5\n";
    an_empty_item_is_filled_in:
        "a:\n-   {} # x\n", {"/a/0/b": 1, "/a/0/c": 2} => "a:\n-   b: 1 # x\n    c: 2\n";
    an_empty_document_of_braces_is_filled_in:
        "# x\n{} # y\n", {"/b": 1, "/c": 2} => "# x\n{\"b\": 1, \"c\": 2} # y\n";
    unicode_does_not_shift_anything:
        "ä: {ö: ü}\n日本: # 語\n- é\n", {"/ä/b": "ß", "/日本/-": "🦀"}
        => "ä: {ö: ü, b: ß}\n日本: # 語\n- é\n- \"🦀\"\n";
    quoted_keys_are_found:
        "\"a/b\":\n  'c~d': {}\n", {"/a~1b/c~0d/e": 1} => "\"a/b\":\n  'c~d':\n    e: 1\n";
    keys_are_quoted_like_values:
        "a: 1\n", {"/yes": 1, "/b.c~1d": 2, "/1": 3, "/": 4}
        => "a: 1\n\"yes\": 1\nb.c/d: 2\n\"1\": 3\n\"\": 4\n";
    tabs_in_flow_style:
        "{\n\t\"b\":\t1,\n\t\"c\": [\n\t\t1,\n\t\t2\n\t]\n}\n", {"/d": {"e": 3}, "/c/-": 4}
        => "{\n\t\"b\":\t1,\n\t\"c\": [\n\t\t1,\n\t\t2,\n\t\t4\n\t],\n\t\"d\": {\n\t\t\"e\": 3\n\t}\n}\n";
    tabs_in_flow_style_in_block_style:
        "a: {\tb: 1,\n \tc: 2\t}\n", {"/a/d": 3} => "a: {\tb: 1,\n \tc: 2, d: 3\t}\n";
    comments_in_flow_style:
        "a: [\n  1, # one\n  2 # two\n]\nb: [\n  1,\n  2, # two\n]\n", {"/a/-": 3, "/b/-": 4}
        => "a: [\n  1, # one\n  2, # two\n  3\n]\nb: [\n  1,\n  2, # two\n  4,\n]\n";
    a_flow_list_keeps_its_quotes:
        "a: [\"x\", \"y\"]\nb: [ x ]\n", {"/a/-": "z", "/b/-": "z"}
        => "a: [\"x\", \"y\", \"z\"]\nb: [ x, z ]\n";
    flow_values_that_are_not_there_are_filled_in:
        "a: {b: , c: {}, d: [], e: null}\n", {"/a/b": 1, "/a/c/x": 2, "/a/d/-": 3, "/a/e": 4}
        => "a: {b: 1 , c: {x: 2}, d: [3], e: 4}\n";
    compact_json_stays_compact:
        "{\"a\":[1,2],\"b\":{},\"c\":{\"d\":\"e\"}}",
        {"/a/-": {"x": 1, "y": [2]}, "/b/x": "y", "/c/f": "yes", "/g": null, "/c/d": 1}
        => "{\"a\":[1,2,{\"x\":1,\"y\":[2]}],\"b\":{\"x\":\"y\"},\"c\":{\"d\":1,\"f\":\"yes\"},\"g\":null}";
    pretty_json_stays_pretty:
        "{\n    \"a\": [\n        1\n    ],\n    \"b\": {},\n    \"c\": [1, 2]\n}\n",
        {"/a/-": {"x": [], "y": [1]}, "/b/z": "w", "/c/-": 3, "/d": "e"}
        => "{\n    \"a\": [\n        1,\n        {\n            \"x\": [],\n            \"y\": [\n                1\n            ]\n        }\n    ],\n    \"b\": {\n        \"z\": \"w\"\n    },\n    \"c\": [1, 2, 3],\n    \"d\": \"e\"\n}\n";
    a_merge_key_is_overridden:
        "x: &x {b: 1}\na:\n  <<: *x\n  c: 2\n", {"/a/b": 3}
        => "x: &x {b: 1}\na:\n  <<: *x\n  c: 2\n  b: 3\n";
    an_anchor_nobody_uses_is_no_obstacle:
        "a: &x\n  b: &y 1\n", {"/a/b": 2, "/a/c": 3} => "a: &x\n  b: &y 2\n  c: 3\n";
    braces_behind_the_marker_are_filled_in:
        "--- {} # x\n", {"/a": 0} => "--- {\"a\": 0} # x\n";
    an_alias_is_replaced:
        "a: &x 1\nb: *x # y\n", {"/b": 2} => "a: &x 1\nb: 2 # y\n";
    a_tag_elsewhere_stays:
        "a: !!str 1\nb: {}\n", {"/b/c": 2} => "a: !!str 1\nb:\n  c: 2\n";
    document_markers_stay:
        "%YAML 1.2\n--- # x\na:\n- 1\n...\n", {"/a/-": 2, "/b": 3}
        => "%YAML 1.2\n--- # x\na:\n- 1\n- 2\nb: 3\n...\n";
    a_byte_order_mark_stays:
        "\u{feff}a:\n- 1\n", {"/a/-": 2, "/b": 3} => "\u{feff}a:\n- 1\n- 2\nb: 3\n";
    a_list_is_the_document:
        "# x\n- 1\n# y\n", {"/-": 2} => "# x\n- 1\n- 2\n# y\n";
    a_path_made_by_an_operation_is_used_by_the_next:
        "a: 1\n", {"/b": {}, "/b/c": [], "/b/c/-": {"d": 1}, "/b/c/0/e": 2, "/b/c/0": 3}
        => "a: 1\nb:\n  c:\n  - 3\n  - d: 1\n    e: 2\n";
    an_item_is_inserted_above_the_comments_of_the_next:
        "spec:\n  preKubeadmCommands: # all\n  # first\n  - a # one\n  # about b\n  # too\n  - b\n  postKubeadmCommands: []\n",
        [{"op": "add", "path": "/spec/preKubeadmCommands/0", "value": "x"},
         {"op": "add", "path": "/spec/preKubeadmCommands/2", "value": "z"}]
        => "spec:\n  preKubeadmCommands: # all\n  - x\n  # first\n  - a # one\n  - z\n  # about b\n  # too\n  - b\n  postKubeadmCommands: []\n";
    an_item_is_inserted_in_front_of_quoted_and_literal_ones:
        "a:\n    - \"b\"\nc:\n- |\n  d\n  e\nf:\n-   >-\n    g\n",
        {"/a/0": "x", "/c/0": "y\nz\n", "/c/2": "w", "/f/0": {"h": 1, "i": 2}}
        => "a:\n    - x\n    - \"b\"\nc:\n- |\n  y\n  z\n- |\n  d\n  e\n- w\nf:\n- h: 1\n  i: 2\n-   >-\n    g\n";
    an_item_is_inserted_in_front_of_one_on_the_line_of_its_list:
        "- - 1\n  - 2\n- -   a: 1\n", {"/0/0": {"x": 1, "w": 2}, "/1/0": 3, "/0/2": 4}
        => "- - x: 1\n    w: 2\n  - 1\n  - 4\n  - 2\n- -   3\n  -   a: 1\n";
    items_are_inserted_into_flow_lists:
        "a: [b, \"c\"]\nd: [\n  # one\n  1, # 1\n  2\n]\ne: [ &x f, !!str 1]\n",
        {"/a/0": "x", "/a/2": "z", "/d/0": 0, "/d/2": 8, "/e/0": 1, "/e/2": 2}
        => "a: [x, b, \"z\", \"c\"]\nd: [\n  0,\n  # one\n  1, # 1\n  8,\n  2\n]\ne: [ 1, &x f, 2, !!str 1]\n";
    items_are_inserted_into_json:
        "{\r\n \"a\": [\r\n  1\r\n ],\r\n \"b\": [1]\r\n}\r\n", {"/a/0": {"c": 0}, "/b/0": 0}
        => "{\r\n \"a\": [\r\n  {\r\n   \"c\": 0\r\n  },\r\n  1\r\n ],\r\n \"b\": [0, 1]\r\n}\r\n";
    items_are_inserted_into_compact_json: "{\"a\":[1]}", {"/a/0": 0} => "{\"a\":[0,1]}";
    an_item_is_replaced_and_keeps_the_comments_around_it:
        "files:\n# ours\n- path: /a # p\n  # inside\n  content: |\n    x\n    y\n# theirs\n- path: /b\n",
        [{"op": "replace", "path": "/files/0", "value": {"path": "/a", "content": "z\nw\n", "owner": "root"}}]
        => "files:\n# ours\n- path: /a\n  content: |\n    z\n    w\n  owner: root\n# theirs\n- path: /b\n";
    items_are_replaced_by_others_of_other_kinds:
        "a:\n- b # 1\n- |\n  c\n- [d,\n  e] # 2\n- f: 1\n  g: 2\n-\n- # 3\n  h: 1\n- - 1\n  - 2\n",
        [{"op": "replace", "path": "/a/0", "value": {"x": 1, "w": 2}}, {"op": "replace", "path": "/a/1", "value": [3, 4]},
         {"op": "replace", "path": "/a/2", "value": "z"}, {"op": "replace", "path": "/a/3", "value": "p\nq\n"},
         {"op": "replace", "path": "/a/4", "value": 5}, {"op": "replace", "path": "/a/5", "value": {"i": 6}},
         {"op": "replace", "path": "/a/6", "value": []}]
        => "a:\n- x: 1 # 1\n  w: 2\n- - 3\n  - 4\n- z # 2\n- |\n  p\n  q\n- 5\n- # 3\n  i: 6\n- []\n";
    a_member_with_a_list_or_a_mapping_is_replaced:
        "a: # 1\n  # 2\n  b: 1 # 3\n# 4\nc:\n  - 1\n  - 2\n  # 5\nd: {e: 1} # 6\nf:\n- 1\ng: &g\n  h: 1\ni:\n  \"j\" # 7\n",
        {"/a": {"x": 1, "w": [2]}, "/c": [3], "/d": 4, "/f": "x\ny\n", "/g": 5, "/i": 6}
        => "a: # 1\n  # 2\n  x: 1\n  w:\n    - 2\n# 4\nc:\n  - 3\n  # 5\nd: 4 # 6\nf: |\n  x\n  y\ng: &g 5\ni:\n  6 # 7\n";
    a_member_becomes_of_another_kind:
        "a:\n  b: 1\n  c: 2\nd:\n- 1\ne: |\n  x\n  y\nf: [1,\n 2]\n",
        {"/a": [1, 2], "/d": {"x": 1}, "/e": [], "/f": {"w": {"z": 1}}}
        => "a:\n- 1\n- 2\nd:\n  x: 1\ne: []\nf:\n  w:\n    z: 1\n";
    items_are_removed_with_their_own_comments_only:
        "a:\n# 1\n- b # 2\n# 3\n- c: 1\n  # 4\n  d: 2\n  # 5\n# 6\n- e\n\n# 7\nf: 1\n",
        [{"op": "remove", "path": "/a/1"}, {"op": "remove", "path": "/a/0"}]
        => "a:\n# 1\n# 3\n# 6\n- e\n\n# 7\nf: 1\n";
    the_last_item_leaves_an_empty_list:
        "a: # 1\n# 2\n- b # 3\n# 4\nc:\n  - 1\n\n  # 5\n  - 2\nd:\n- - 1\ne: [1]\n",
        [{"op": "remove", "path": "/a/0"}, {"op": "remove", "path": "/c/0"}, {"op": "remove", "path": "/c/0"},
         {"op": "remove", "path": "/d/0/0"}, {"op": "remove", "path": "/e/0"}]
        => "a: [] # 1\n# 2\n# 4\nc: []\n\n  # 5\nd:\n- []\ne: []\n";
    members_are_removed:
        "a: 1 # 1\n# 2\nb:\n  c: 1\n  # 3\nd: |\n  x\n\ne:\n- f: 1\n  g: 2\n- h: 1\ni: {j: 1}\n",
        [{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/b"}, {"op": "remove", "path": "/d"},
         {"op": "remove", "path": "/e/0/f"}, {"op": "remove", "path": "/e/1/h"}, {"op": "remove", "path": "/i/j"}]
        => "# 2\n\ne:\n-\n  g: 2\n- {}\ni: {}\n";
    the_last_member_leaves_an_empty_mapping:
        "# 1\na:\n  b: 1\n# 2\n", [{"op": "remove", "path": "/a/b"}] => "# 1\na: {}\n# 2\n";
    a_document_is_emptied:
        "# 1\n---\na: 1 # 2\n# 3\nb: 2\n# 4\n", [{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/b"}]
        => "# 1\n---\n{}\n# 3\n# 4\n";
    a_removed_last_line_leaves_no_final_line_break:
        "a:\r\n- 1\r\n- 2", [{"op": "remove", "path": "/a/1"}] => "a:\r\n- 1";
    entries_of_flow_style_are_removed:
        "a: [1, 2, 3]\nb: [1, 2,]\nc: {d: 1, \"e\": , f}\ng: [\n  1, # one\n  # about 2\n  2, # two\n  3 # three\n]\nh: [1, # 1\n  2, 3]\n",
        [{"op": "remove", "path": "/a/2"}, {"op": "remove", "path": "/a/0"}, {"op": "remove", "path": "/b/1"},
         {"op": "remove", "path": "/c/d"}, {"op": "remove", "path": "/c/e"}, {"op": "remove", "path": "/g/2"},
         {"op": "remove", "path": "/g/0"}, {"op": "remove", "path": "/h/0"}]
        => "a: [2]\nb: [1, ]\nc: {f}\ng: [\n  # about 2\n  2 # two\n]\nh: [ # 1\n  2, 3]\n";
    entries_of_json_are_removed:
        "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": {\"c\": 1, \"d\": 2},\n  \"e\": 1\n}\n",
        [{"op": "remove", "path": "/a/1"}, {"op": "remove", "path": "/b/c"}, {"op": "remove", "path": "/e"}]
        => "{\n  \"a\": [\n    1\n  ],\n  \"b\": {\"d\": 2}\n}\n";
    what_is_removed_and_added_again_takes_its_place:
        "a:\n# 1\n- b\n- c\nd: 1 # 2\ne: {f: 1, g: 2}\n",
        [{"op": "remove", "path": "/a/0"}, {"op": "add", "path": "/a/0", "value": "x"}, {"op": "remove", "path": "/d"},
         {"op": "add", "path": "/d", "value": 2}, {"op": "remove", "path": "/e/g"}, {"op": "add", "path": "/e/h", "value": 3}]
        => "a:\n# 1\n- x\n- c\nd: 2 # 2\ne: {f: 1, h: 3}\n";
    a_literal_at_the_end_without_a_line_break_keeps_its_content:
        "a:\n- |\n  x\n  y", {"/a/-": "z", "/b": "p\nq"} => "a:\n- |-\n  x\n  y\n- z\nb: |-\n  p\n  q";
    a_literal_at_the_end_without_a_line_break_stays_as_it_is:
        "a: 1\nb:\n- c: |+\n    x", {"/b/0/a": 1, "/b/0/d": "1\n2\n"}
        => "a: 1\nb:\n- c: |-\n    x\n  a: 1\n  d: \"1\\n2\\n\"";
    what_is_in_front_of_a_literal_at_the_end_may_be_one:
        "a:\n- b\n- >\n  x", {"/a/0": "p\nq\n"} => "a:\n- |\n  p\n  q\n- b\n- >\n  x";
    a_literal_is_not_written_above_a_comment_it_would_swallow:
        "a:\n- b\n  # c\n- d\n", [{"op": "replace", "path": "/a/0", "value": "p\nq\n"}]
        => "a:\n- \"p\\nq\\n\"\n  # c\n- d\n";
    long_texts_are_literal_blocks:
        "a: 1\n", {"/b": "x\n  y: z\n\n# w\n", "/c": ["p\nq"], "/d": " x\ny", "/e": "x\n\n"}
        => "a: 1\nb: |\n  x\n    y: z\n\n  # w\nc:\n- |-\n  p\n  q\nd: \" x\\ny\"\ne: \"x\\n\\n\"\n";
}

#[test]
fn what_cannot_be_edited_in_place_is_written_anew_between_its_outer_comments() {
    let cases = [
        // Behind an alias; aliased elsewhere.
        (
            "# x\na: &x\n  b: 1 # y\nc: *x\n# z\n",
            json!({"/c/d": 2}),
            "# x\na:\n  b: 1\nc:\n  b: 1\n  d: 2\n# z\n",
        ),
        ("a: &x\n  b: 1\nc: *x\n", json!({"/a/d": 2}), "a:\n  b: 1\n  d: 2\nc:\n  b: 1\n"),
        // Behind a merge key.
        ("x: &x\n  b: {}\na:\n  <<: *x\n", json!({"/a/b/c": 1}), "x:\n  b: {}\na:\n  b:\n    c: 1\n"),
        // With a tag.
        ("a: !!map\n  b: 1\n", json!({"/a/c": 1}), "a:\n  b: 1\n  c: 1\n"),
        // A complex key.
        ("? a\n: 1\nb: 2\n", json!({"/c": 1}), "a: 1\nb: 2\nc: 1\n"),
        // A pair without braces.
        ("a: [b: 1]\n", json!({"/a/0/c": 1}), "a:\n- b: 1\n  c: 1\n"),
        // In the place of all of it.
        ("---\na:\n- 1 # x\n", json!({"": {"b": 0}}), "---\nb: 0\n"),
        ("{\"a\": [1]}", json!({"": {"b": [1, 2]}}), "{\"b\": [1, 2]}\n"),
    ];
    for (before, operations, after) in cases {
        assert_eq!(anew(before, &operations), after);
    }
}

#[test]
fn a_stream_is_cut_without_losing_a_byte() {
    let cases: [(&str, &[&str]); 12] = [
        ("", &[]),
        ("# c\n", &["# c\n"]),
        ("a: 1", &["a: 1"]),
        ("# c\n---\na: 1\n---\nb: 1\n", &["# c\n---\na: 1\n", "---\nb: 1\n"]),
        ("a: 1\r\n--- # x\r\nb: 1\r\n---\r\n", &["a: 1\r\n", "--- # x\r\nb: 1\r\n", "---\r\n"]),
        ("a: |\n  ---\n ---\n---x\n", &["a: |\n  ---\n ---\n---x\n"]),
        ("a: 1\n...\n# c\n---\nb: 1\n", &["a: 1\n...\n", "# c\n---\nb: 1\n"]),
        ("a: 1\n...\n# c\n", &["a: 1\n...\n# c\n"]),
        ("\u{feff}---\na: 1\n--- {b: 1}", &["\u{feff}---\na: 1\n", "--- {b: 1}"]),
        ("%YAML 1.2\n---\na: 1\n", &["%YAML 1.2\n---\na: 1\n"]),
        ("{\"a\": 1}\n{\"a\": 2}{\"a\": 3} \n\n", &["{\"a\": 1}\n", "{\"a\": 2}", "{\"a\": 3} \n\n"]),
        ("{a: 1}\n---\n{\"b\": \"\"}\n", &["{a: 1}\n", "---\n{\"b\": \"\"}\n"]),
    ];
    for (stream, texts) in cases {
        let documents = documents(stream);
        let found: Vec<_> = documents.iter().map(|document| document.text).collect();
        assert_eq!(found, texts);
        assert_eq!(found.concat(), stream);
        let mut line = 1;
        for (index, document) in documents.iter().enumerate() {
            assert_eq!((document.number, document.line), (index + 1, line));
            line += document.text.matches('\n').count();
        }
    }
}

#[test]
fn values_are_what_kubectl_reads() {
    let cases = [
        ("[yes, No, ON, y, true]", json!([true, false, true, true, true])),
        ("[0755, 0o17, 0x1F, 0b11, 1_000, -010, +5, -0]", json!([493, 15, 31, 3, 1000, -8, 5, 0])),
        ("[08, 1e3, 1., .5, -1.5E-2]", json!([8.0, 1000.0, 1.0, 0.5, -0.015])),
        ("[18446744073709551615, -9223372036854775808]", json!([u64::MAX, i64::MIN])),
        ("[18446744073709551616]", json!([18_446_744_073_709_551_616.0])),
        (
            "[1:20, 2001-01-01, 1.2.3, 0x, 1e, infinity, --1, 0o-7, .]",
            json!(["1:20", "2001-01-01", "1.2.3", "0x", "1e", "infinity", "--1", "0o-7", "."]),
        ),
        ("[~, null, Null, '', \"null\", 'yes']", json!([null, null, null, "", "null", "yes"])),
        ("[!!str 1, !!int '2', ! 3, !x 4]", json!(["1", 2, "3", "4"])),
        (
            "{on: 1, 010: 2, 1.10: 3, 1e7: 4, 'off': 5}",
            json!({"true": 1, "8": 2, "1.1": 3, "1e+07": 4, "off": 5}),
        ),
        (
            "a: &a {x: 1, z: 2}\nb: {<<: *a, x: 3}\nc: {<<: [{x: 4}, *a]}\nd: *a",
            json!({"a": {"x": 1, "z": 2}, "b": {"x": 3, "z": 2}, "c": {"x": 4, "z": 2}, "d": {"x": 1, "z": 2}}),
        ),
        ("'<<': 1", json!({"<<": 1})),
        ("{\"a\": \"\\ud83d\\ude00\\/\"}", json!({"a": "😀/"})),
        ("a: >\n  x\n  y\n\n  z\nb: |-\n  x\n", json!({"a": "x y\nz\n", "b": "x"})),
        // Without a line break at the end there is none in the value.
        ("a: |\n  x\nb: |\n  x", json!({"a": "x\n", "b": "x"})),
        ("- >+\n x", json!(["x"])),
    ];
    for (text, value) in cases {
        assert_eq!(read(text), value, "{text}");
    }
}

#[test]
fn variables_of_clusterctl_are_strings_wherever_they_stand() {
    let cases = [
        ("a: ${X}\n${Y}: \"${Z:=1}\"\n", json!({"a": "${X}", "${Y}": "${Z:=1}"})),
        ("a: ${X:=[\"10.0.0.0/8\"]}\n", json!({"a": "${X:=[\"10.0.0.0/8\"]}"})),
        // Only clusterctl can make YAML of these.
        (
            "a: [${X}]\nb: [a${X}b, ${Y:-c}, \"${Z}\"]\n",
            json!({"a": ["${X}"], "b": ["a${X}b", "${Y:-c}", "${Z}"]}),
        ),
        ("a: {b: ${X}, ${Y}: 1, c: '${Z}'} # ${X}\n", json!({"a": {"b": "${X}", "${Y}": 1, "c": "${Z}"}})),
        (
            "a: ${X:= b: c}\nb: |\n  ${X} # ${YY}\n  $${Z}\n",
            json!({"a": "${X:= b: c}", "b": "${X} # ${YY}\n$${Z}\n"}),
        ),
        (
            "a: [${ä:=é}, ${X} ${Y}\n ${Z}]\nb: &b [${X}]\nc: *b\n",
            json!({"a": ["${ä:=é}", "${X} ${Y} ${Z}"], "b": ["${X}"], "c": ["${X}"]}),
        ),
        ("a: [$~~~, ${X}]\n", json!({"a": ["$~~~", "${X}"]})),
    ];
    for (text, value) in cases {
        assert_eq!(read(text), value, "{text}");
    }
    assert_eq!(
        read_error("a: 1\nb: [${X:=\"1\"}]\n"),
        "line 2, column 6: while parsing a flow sequence, expected ',' or ']'; put quotes around the variable here",
    );
    assert_eq!(read_error("b: [${X}]\nc: [\n"), read_error("b: [X]\nc: [\n"));
    assert_eq!(read_error("b: [${X}]\nb: 1\n"), "line 2, column 1: the key `b` is given twice");
}

#[test]
fn lines_with_variables_stay_as_they_are() {
    let text = "a: [${X}] # ${Y}\nb: {c: ${Z}}\nd: ${ é }";
    let operations = json!({"/a/0": "x", "/a/-": "${W}", "/b/e": "y z", "/f": "${V}"});
    assert_eq!(
        in_place(text, &operations),
        "a: [x, ${X}, \"${W}\"] # ${Y}\nb: {c: ${Z}, e: y z}\nd: ${ é }\nf: ${V}",
    );
}

#[test]
fn a_document_without_content_has_no_value() {
    for text in ["# x\n", "---\n", "---\n# x\n...\n", "~\n", "%YAML 1.2\n---\n", "\n"] {
        assert_eq!(documents(text)[0].read(), Ok(None), "{text:?}");
    }
}

#[test]
fn errors_name_the_line_and_the_column_of_the_stream() {
    let cases = [
        ("a: 1\n---\nb: 1\nc: 2\nb: 3\n", "line 5, column 1: the key `b` is given twice"),
        ("a: 1\n---\n\"true\": 1\nyes: 2\n", "line 4, column 1: the key `true` is given twice"),
        ("a: 1\n---\nb: {[1]: 2}\n", "line 3, column 5: a key must be a string, not a list or a mapping"),
        ("~: 1\n", "line 1, column 1: a key must be a string, not `null`"),
        ("a:\n  - .inf\n", "line 2, column 5: `.inf` has no equivalent in JSON"),
        ("a: &a [*a]\n", "line 1, column 8: the alias is inside of what it stands for"),
        ("a: {<<: 1}\n", "line 1, column 5: `<<` takes a mapping or a list of them"),
    ];
    for (text, message) in cases {
        assert_eq!(read_error(text), message);
    }
    assert!(read_error("a: 1\n---\nb: [\n").starts_with("line "));
    assert!(read_error("a: 1\n---\nb: *x\n").starts_with("line 3, column 4: "));
}

#[test]
fn aliases_that_multiply_out_are_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        let list = vec![alias; 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{list}]").expect("it is written");
    }
    assert!(read_error(&text).ends_with("the aliases make this document too large"));
    let mut text = String::from("a0: &a0 [x]\n");
    for level in 1..5000 {
        writeln!(text, "a{level}: &a{level} [*a{}]", level - 1).expect("it is written");
    }
    assert!(read_error(&text).ends_with("the values are nested too deep"));
    let text = format!("{}{}", "[".repeat(200), "]".repeat(200));
    assert!(read_error(&text).ends_with("the values are nested too deep"));
}

#[test]
fn an_operation_without_a_place_is_an_error() {
    let cases = [
        ("/b/c", "there is no such parent"),
        ("/a/0/c", "the parent is neither a list nor a mapping"),
        ("/a/2", "the list has no such place"),
        ("/a/01", "the list has no such place"),
        ("/a/x", "the list has no such place"),
        ("a", "a JSON pointer starts with `/`"),
    ];
    for (path, message) in cases {
        assert_eq!(
            documents("a: [1]\n")[0].edit(&[Operation::add(path, json!(1))]),
            Err(Error::Path { operation: "add", path: path.to_owned(), message: message.to_owned() }),
        );
    }
    let cases = [
        (Operation::replace("/b", json!(1)), "cannot replace at \"/b\": there is no such member"),
        (Operation::replace("/a/1", json!(1)), "cannot replace at \"/a/1\": there is no such item"),
        (Operation::remove("/b"), "cannot remove at \"/b\": there is no such member"),
        (Operation::remove("/a/-"), "cannot remove at \"/a/-\": there is no such item"),
        (Operation::remove(""), "cannot remove at \"\": a document cannot be removed from itself"),
    ];
    for (operation, message) in cases {
        let error = documents("a: [1]\n")[0].edit(&[operation]).expect_err("there is no such place");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let key = format!("/{}", "k".repeat(2000));
    assert_eq!(
        documents("a: 1\n---\nb: 1\n")[1].edit(&[Operation::add(key, json!(1))]),
        Err(Error::Unwritable { line: 2 }),
    );
}

#[test]
fn json_is_told_from_flow_style() {
    for (text, is_json) in [
        ("{\"a\": 1}\n", true),
        ("\u{feff} [1]", true),
        ("{a: 1}\n", false),
        ("a: 1\n", false),
        ("---\n{\"a\": 1}\n", false),
    ] {
        assert_eq!(documents(text)[0].is_json(), is_json, "{text}");
    }
}

#[test]
fn strings_are_plain_only_where_every_reader_agrees() {
    for text in [
        "a",
        "nginx:1.25",
        "/bin/sh",
        "100m",
        "128Mi",
        "--flag=x",
        "-v",
        "a b",
        "8080/tcp",
        "$(VAR)",
        "app.kubernetes.io/name",
        "é",
        "a\"b",
        "x,y",
        "echo {}",
        "https://x.example:80/y?z=1&w",
    ] {
        assert_eq!(to_yaml(&json!(text)), format!("{text}\n"));
    }
    for text in [
        "",
        "yes",
        "No",
        "y",
        "~",
        "null",
        "NULL",
        "0755",
        "1e3",
        "1E3",
        "0x1f",
        "1_000",
        "1:20",
        "-1",
        "+1",
        "1.5",
        ".5",
        "-.inf",
        "-inf",
        ".nan",
        "2001-01-01",
        "2001-01-01T00:00:00Z",
        "=",
        "<<",
        "- a",
        "-",
        "---",
        "...",
        "a: b",
        "a:",
        "a #b",
        "#a",
        " a",
        "a ",
        "*a",
        "&a",
        "!a",
        "@a",
        "`a",
        "%a",
        "? a",
        "|",
        ">",
        "[a]",
        "{a}",
        ",a",
        "a\tb",
        "a\u{85}b",
        "a\u{2028}b",
        "\u{feff}a",
        "\u{7f}",
        "1.28.0",
        "10.0.0.1",
        "12e03",
        "0o17",
        "0b1",
        "none",
        "a\rb",
    ] {
        assert_eq!(to_yaml(&json!(text)), format!("{}\n", quoted(text)), "{text}");
        assert_eq!(read(&to_yaml(&json!([text]))), json!([text]));
    }
    assert_eq!(to_yaml(&json!("*\"x\"")), "'*\"x\"'\n");
    // What a comma or a bracket ends only inside of brackets.
    assert_eq!(in_place("a: [b]\n", &json!({"/a/-": "x,y"})), "a: [b, \"x,y\"]\n");
}

fn quoted(text: &str) -> String {
    text.chars().fold(String::from("\""), |out, c| match c {
        '\t' => out + "\\t",
        '\r' => out + "\\r",
        '\u{85}' | '\u{2028}' | '\u{feff}' | '\u{7f}' => out + &format!("\\u{:04x}", u32::from(c)),
        c => format!("{out}{c}"),
    }) + "\""
}

#[test]
fn yaml_is_written_like_kubectl_writes_it() {
    assert_eq!(
        to_yaml(&json!({
            "kind": "Pod",
            "empty": {"map": {}, "list": [], "null": null},
            "list": [{"name": "a", "args": ["x", ["w", {"z": 1.5}]]}, "b\nc\n", 1e30],
        })),
        "\
kind: Pod
empty:
  map: {}
  list: []
  \"null\": null
list:
- name: a
  args:
  - x
  - - w
    - z: 1.5
- |
  b
  c
- 1.0e+30
"
    );
}

/// Strings that are hard on a writer of YAML, and others.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,6}",
        "[-+.:#&*!|>'\"%@`{}\\[\\],~?= 0-9eExX_\n\tna]{0,6}",
        "\\PC{0,5}",
        any::<String>().prop_map(|text| text.chars().take(8).collect()),
        proptest::sample::select(vec![
            "yes", "0755", "1e3", "~", "null", "- a", "a: b", "x\ny\n", "x\n\n y", "<<", " \n",
        ])
        .prop_map(str::to_owned),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((texts(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Pointers to what is below `pointer`.
fn parts(value: &Value, pointer: &str, out: &mut Vec<String>) {
    let members: Vec<(String, &Value)> = match value {
        Value::Object(members) => {
            members.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
        }
        _ => return,
    };
    for (token, value) in members {
        let pointer = format!("{pointer}/{token}");
        out.push(pointer.clone());
        parts(value, &pointer, out);
    }
}

/// Pointers to where something new can be added, below `pointer`.
fn ends(value: &Value, pointer: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(_) => out.push(format!("{pointer}/new")),
        Value::Array(_) => out.push(format!("{pointer}/-")),
        _ => return,
    }
    let mut inner = Vec::new();
    parts(value, "", &mut inner);
    for part in inner {
        match value.pointer(&part) {
            Some(Value::Object(_)) => out.push(format!("{pointer}{part}/new")),
            Some(Value::Array(_)) => out.push(format!("{pointer}{part}/-")),
            _ => {}
        }
    }
}

/// An operation that applies to a value.
fn chosen(value: &Value, kind: usize, choice: proptest::sample::Index, new: Value) -> Operation {
    let mut paths = Vec::new();
    let kind = if kind == 0 {
        kind
    } else {
        parts(value, "", &mut paths);
        kind
    };
    if paths.is_empty() {
        ends(value, "", &mut paths);
        return Operation::add(choice.get(&paths).clone(), new);
    }
    let path = choice.get(&paths).clone();
    match kind {
        1 => Operation::add(path, new),
        2 => Operation::replace(path, new),
        _ => Operation::remove(path),
    }
}

/// The value after operations, by another implementation of RFC 6902.
fn patched(value: &Value, operations: &[Operation]) -> Value {
    let patch: Vec<Value> = operations
        .iter()
        .map(|operation| {
            let mut json = json!({"op": operation.name(), "path": operation.path()});
            if let Operation::Add { value, .. } | Operation::Replace { value, .. } = operation {
                json["value"] = value.clone();
            }
            json
        })
        .collect();
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(patch)).expect("a patch");
    let mut value = value.clone();
    json_patch::patch(&mut value, &patch).expect("it applies");
    value
}

/// A text of the block style in which every line of `marked` has a comment above it and one behind it.
fn commented(text: &str, marked: &[bool]) -> String {
    let mut out = String::new();
    for (number, line) in text.lines().enumerate() {
        let margin = &line[..line.len() - line.trim_start().len()];
        if *marked.get(number).unwrap_or(&false) {
            write!(out, "{margin}# above {number}\n{line} # behind {number}\n").expect("it is written");
        } else {
            writeln!(out, "{line}").expect("it is written");
        }
    }
    out
}

/// A value in one of the styles that are found in the wild.
fn emitted(value: &Value, style: usize) -> String {
    let block = |step, dash| {
        let mut text = String::new();
        let literal = true;
        write::Block { step, dash, literal }.value(&mut text, value, 0);
        text + "\n"
    };
    match style {
        0 => to_yaml(value),
        1 => value.to_string(),
        2 => serde_json::to_string_pretty(value).expect("it is JSON") + "\n",
        3 => block(4, 2),
        4 => format!("---\n# head\n{}# tail\n", block(2, 2)),
        5 => block(3, 0).replace('\n', "\r\n"),
        _ => write::flow(value, write::Flow::YAML, None, true),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_written_reads_back(value in values()) {
        for style in 0..7 {
            let text = emitted(&value, style);
            let found = documents(&text)
                .iter()
                .find_map(|document| document.read().transpose())
                .transpose();
            prop_assert_eq!(found.as_ref(), Ok(&Some(value.clone()).filter(|v| !v.is_null())), "{}", text);
        }
    }

    #[test]
    fn an_edit_of_the_text_is_an_edit_of_the_values(
        value in values().prop_filter("a collection", |value| value.is_object() || value.is_array()),
        style in 0_usize..7,
        choices in proptest::collection::vec((0_usize..4, any::<proptest::sample::Index>(), values()), 1..6),
        ends_line in any::<bool>(),
    ) {
        let mut text = emitted(&value, style);
        if !ends_line {
            text.truncate(text.strip_suffix("\r\n").or(text.strip_suffix('\n')).unwrap_or(&text).len());
        }
        // A literal block at the end has no line break now.
        let value = read(&text);
        let mut expected = value.clone();
        let mut operations = Vec::new();
        for (kind, choice, new) in choices {
            if expected.is_object() || expected.is_array() {
                let operation = chosen(&expected, kind, choice, new);
                expected = patched(&expected, std::slice::from_ref(&operation));
                operations.push(operation);
            }
        }
        let edited = edit(&text, &operations);
        prop_assert_eq!(&read(&edited.text), &expected, "{}\n{:?}\n{}", text, operations, edited.text);
        let is_block = !matches!(style, 1 | 2 | 6);
        prop_assert!(!is_block || !edited.reemitted, "{}\n{:?}\n{}", text, operations, edited.text);
    }

    #[test]
    fn lines_outside_of_what_an_operation_is_about_stay(
        value in values().prop_filter("a collection", |value| value.is_object() || value.is_array()),
        (step, dash) in proptest::sample::select(vec![(2, 0), (2, 2), (4, 2)]),
        marked in proptest::collection::vec(any::<bool>(), 40),
        kind in 0_usize..4,
        choice in any::<proptest::sample::Index>(),
        new in values(),
        ends_line in any::<bool>(),
    ) {
        let mut text = String::new();
        write::Block { step, dash, literal: false }.value(&mut text, &value, 0);
        let mut text = commented(&text, &marked);
        if !ends_line {
            text.pop();
        }
        let operation = chosen(&value, kind, choice, new);
        let edited = edit(&text, std::slice::from_ref(&operation));
        let context = format!("{text}\n{operation:?}\n{}", edited.text);
        prop_assert!(!edited.reemitted, "{}", context);
        prop_assert_eq!(read(&edited.text), patched(&value, std::slice::from_ref(&operation)), "{}", context);
        prop_assert!(edited.text.is_empty() || edited.text.ends_with('\n') == ends_line, "{}", context);

        // What is there already, and is not only moved.
        let is_item = documents(&text)[0].locate(operation.path(), None).is_some_and(|_| {
            operation.path().rsplit_once('/').is_some_and(|(list, _)| value.pointer(list).is_some_and(Value::is_array))
        });
        let is_new = matches!(operation, Operation::Add { .. }) && (is_item || value.pointer(operation.path()).is_none());
        let own = if is_new {
            0..0
        } else {
            let place = documents(&text)[0].locate(operation.path(), None).expect("a place");
            let lines: Vec<&str> = text.lines().collect();
            let mut start = place.line - 1;
            // With the key above a list or a mapping.
            if matches!(operation, Operation::Remove { .. }) && lines[start].chars().take(place.column - 1).all(|c| c == ' ' || c == '-') {
                start = lines[..start].iter().rposition(|line| !line.trim_start().starts_with('#')).unwrap_or(start);
            }
            start..place.end_line
        };
        let after: Vec<&str> = edited.text.lines().collect();
        let others = text.lines().enumerate().filter(|(number, _)| !own.contains(number));
        let others: Vec<&str> = others.map(|(_, line)| line).collect();
        let diff = similar::TextDiff::from_slices(&others, &after);
        let lost: Vec<&str> = diff
            .iter_all_changes()
            .filter(|change| change.tag() == similar::ChangeTag::Delete)
            .map(|change| change.value())
            .collect();
        // The line of the key, or that of the list or mapping that becomes an empty one.
        prop_assert!(lost.len() <= 1, "{:?}\n{}", lost, context);
        prop_assert!(!lost.iter().any(|line| line.trim_start().starts_with('#')), "{:?}\n{}", lost, context);
    }
}
