//! `reach crds`: the CRDs as YAML, or into a cluster.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::Failure;
use super::input::ClusterOptions;
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
    /// Apply them to the cluster (server-side, as field manager `reach-crds`)
    #[arg(long, conflicts_with = "output_dir")]
    apply: bool,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Who reach is in `managedFields` of the CRDs.
const FIELD_MANAGER: &str = "reach-crds";

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.apply {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(apply(&arguments.cluster));
    }
    let documents = api::crds().map(|(name, crd)| (name, manifest::to_yaml(&crd)));
    match &arguments.output_dir {
        Some(folder) => {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            for (name, yaml) in documents {
                let file = folder.join(name);
                fs::write(&file, yaml).with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
        None => super::print(&documents.map(|(_, yaml)| yaml).join("---\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn apply(cluster: &ClusterOptions) -> Result<ExitCode, Failure> {
    let client = kube::Client::try_from(cluster.config().await?)?;
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    for (_, crd) in api::crds() {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default();
        api.patch(name, &parameters, &Patch::Apply(&crd))
            .await
            .with_context(|| format!("cannot apply CustomResourceDefinition {name}"))?;
        super::print(&format!("customresourcedefinition.apiextensions.k8s.io/{name} serverside-applied\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
