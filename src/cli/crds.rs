//! `reach crds`: the CRDs as YAML, or into a cluster.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;

use super::Failure;
use super::input::ClusterOptions;
use crate::api::PresetKind;
use crate::{api, manifest};

/// Print the CustomResourceDefinitions, write them to a folder, or apply them to a cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  reach crds | kubectl apply --server-side -f -
  reach crds --output-dir crds
  reach crds --apply                                 the same by itself: what the chart does before an upgrade")]
pub struct Arguments {
    /// Write one file for each CRD to this folder instead
    #[arg(long, value_name = "DIR", env = "REACH_OUTPUT_DIR")]
    output_dir: Option<PathBuf>,
    /// Write them into the cluster (as field manager `reach-crds`)
    #[arg(long, conflicts_with = "output_dir")]
    apply: bool,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Who reach is in `managedFields` of the CRDs.
const FIELD_MANAGER: &str = "reach-crds";

/// How often a CRD is read anew because it was changed meanwhile.
const MAX_RETRIES: usize = 5;

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.apply {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(apply(&arguments.cluster));
    }
    let documents = PresetKind::ALL.map(|kind| {
        let crd = api::crd(kind);
        let plural = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
        (format!("{}_{plural}.yaml", api::GROUP), manifest::to_yaml(&crd))
    });
    match &arguments.output_dir {
        Some(folder) => {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            for (name, yaml) in documents {
                let file = folder.join(name);
                super::write_whole(&file, &yaml)
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
        None => super::print(&documents.map(|(_, yaml)| yaml).join("---\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn apply(cluster: &ClusterOptions) -> Result<ExitCode, Failure> {
    let client = kube::Client::try_from(cluster.config().await?)?;
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::from_gvk(&kind));
    for kind in PresetKind::ALL {
        let crd: DynamicObject = serde_json::from_value(api::crd(kind)).context(kind.as_str())?;
        let name = crd.metadata.name.as_deref().unwrap_or_default();
        let done = bring_up_to_date(&api, name, &crd)
            .await
            .with_context(|| format!("cannot write CustomResourceDefinition {name}"))?;
        super::print(&format!("customresourcedefinition.apiextensions.k8s.io/{name} {done}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes one as it should be, and says what was done, as kubectl does.
///
/// Replaced, not applied: whoever installed the CRD (`helm`, `kubectl`) owns its fields, and server-side apply would leave
/// those that are no more, and write itself in as an owner where nothing differs. A replacement that changes nothing is none.
async fn bring_up_to_date(
    api: &Api<DynamicObject>,
    name: &str,
    wanted: &DynamicObject,
) -> kube::Result<&'static str> {
    let mut attempts = 0;
    loop {
        let Some(mut crd) = api.get_opt(name).await? else {
            // An apply, not a create: only for this one RBAC knows the name.
            api.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(wanted)).await?;
            return Ok("created");
        };
        let before = crd.metadata.resource_version.clone();
        crd.data["spec"] = wanted.data["spec"].clone();
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match api.replace(name, &parameters, &crd).await {
            Ok(after) if after.metadata.resource_version == before => return Ok("unchanged"),
            Ok(_) => return Ok("configured"),
            // Somebody was faster: the API server itself writes conditions into it.
            Err(kube::Error::Api(status)) if status.code == 409 && attempts < MAX_RETRIES => attempts += 1,
            Err(error) => return Err(error),
        }
    }
}
