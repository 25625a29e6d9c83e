//! Ignition, whose own validator reads what reach writes for it.

use crate::streams::{Presets, pipe};
use crate::support::cluster_api::{ClusterApi, ignition_validate};
use crate::support::kubectl::{succeeded, text};

pub fn takes_what_is_rendered_for_it(_: &ClusterApi) {
    let presets = Presets::example();
    let mut render = presets.command("render");
    render.args(["--format", "ignition", "--unit", "containerd,kubelet", "-o", "-"]);
    let config = succeeded("reach host render", render.output().expect("reach runs"));
    let validate = |config: &str| {
        let mut command = ignition_validate();
        command.arg("-");
        pipe(command, config)
    };
    let answer = validate(&config);
    assert!(answer.status.success() && text(&answer).is_empty(), "{}", text(&answer));
    // It does look: a mode that no file can have, and a unit without a name.
    for (right, wrong) in
        [("\"mode\": 384", "\"mode\": 65536"), ("\"name\": \"reach-proxy.service\"", "\"name\": \"\"")]
    {
        let changed = config.replacen(right, wrong, 1);
        assert_ne!(changed, config, "{right}: {config}");
        assert!(!validate(&changed).status.success(), "{wrong}");
    }
}
