//! `reach crds`: the CRDs as YAML.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::Failure;
use crate::{api, manifest};

/// Print the CustomResourceDefinitions, or write them to a folder
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  reach crds | kubectl apply --server-side -f -\n  reach crds --output-dir crds"
)]
pub struct Arguments {
    /// Write one file for each CRD to this folder instead
    #[arg(long, value_name = "DIR", env = "REACH_OUTPUT_DIR")]
    output_dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
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
