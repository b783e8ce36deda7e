//! `margayctl version`.

use std::io::{self, Write};

use margay_resources::{Kind, Resource};
use serde::Serialize;

use crate::dataplane;
use crate::failure::Failure;
use crate::options::Options;
use crate::output::write_structured;

/// The releases of everything that can be asked.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client: &'static str,
    /// Nothing when no dataplane answers.
    dataplane: Option<String>,
    /// What ClusterInformation says; nothing without a datastore or the object.
    cluster: Option<Cluster>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cluster {
    calico_version: String,
    cluster_type: String,
    guid: String,
}

/// Tells the releases.
///
/// # Errors
/// A dataplane or a datastore that was named and does not answer. What is known is told before.
pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    let dataplane = dataplane::status(options).await.map(|status| status.release);
    let cluster = match options.datastore {
        Some(_) => cluster(options).await,
        None => Ok(None),
    };
    let versions = Versions {
        client: env!("CARGO_PKG_VERSION"),
        dataplane: dataplane.as_ref().ok().cloned(),
        cluster: cluster.as_ref().ok().and_then(Clone::clone),
    };
    if !write_structured(options.form(), &versions)? {
        versions.write(&mut io::stdout().lock())?;
    }
    cluster?;
    match dataplane {
        Err(error) if options.dataplane.is_some() => Err(error),
        _ => Ok(()),
    }
}

async fn cluster(options: &Options) -> Result<Option<Cluster>, Failure> {
    let key = Kind::ClusterInformation.key("", "default");
    let object = match options.open().await?.get(&key).await {
        Err(error) if error.is_not_found() => return Ok(None),
        found => found?,
    };
    Ok(match Resource::from_value(&object.value)? {
        Resource::ClusterInformation(information) => Some(Cluster {
            calico_version: information.spec.calico_version,
            cluster_type: information.spec.cluster_type,
            guid: information.spec.cluster_guid,
        }),
        _ => None,
    })
}

// === impl Versions ===

impl Versions {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "Client Version:    {}", self.client)?;
        let dataplane = self.dataplane.as_deref().unwrap_or("no answer");
        writeln!(out, "Dataplane Version: {dataplane}")?;
        if let Some(cluster) = &self.cluster {
            writeln!(out, "Cluster Version:   {}", cluster.calico_version)?;
            writeln!(out, "Cluster Type:      {}", cluster.cluster_type)?;
        }
        Ok(())
    }
}
