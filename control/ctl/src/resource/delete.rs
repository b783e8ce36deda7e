//! `margayctl delete`.

use margay_datastore::{Datastore, Error, Key};
use margay_resources::Kind;
use serde_json::Value;
use std::path::PathBuf;

use super::get::{namespace_of, what};
use super::input::read_files;
use super::report::Report;
use crate::failure::Failure;
use crate::options::Form;

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kind, or KIND/NAME
    #[arg(value_name = "KIND", required_unless_present = "filename")]
    kind: Option<String>,
    /// Names
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Namespace [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Delete the objects of these files or folders instead; - for standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "kind")]
    filename: Vec<PathBuf>,
    /// Look into the folders of folders too
    #[arg(short = 'R', long, requires = "filename")]
    recursive: bool,
    /// Do not fail because of objects that are not there
    #[arg(short, long)]
    skip_not_exists: bool,
}

/// Deletes objects.
pub(super) async fn run(store: &dyn Datastore, form: Form, args: &Args) -> Result<(), Failure> {
    let mut report = Report::default();
    for key in args.keys()? {
        if let Some(reason) = stays(store, &key).await? {
            report.refuse(&key, &reason);
            continue;
        }
        let result = match store.delete(&key, None).await {
            Ok(_) => Ok("deleted"),
            Err(Error::NotFound(_)) if args.skip_not_exists => Ok("not there"),
            Err(error) => Err(error),
        };
        report.note(key, result);
    }
    report.finish(form)
}

/// Tiers that are always there.
const BUILT_IN: [&str; 3] = ["default", "kube-admin", "kube-baseline"];
/// What stands in tiers.
const POLICIES: [Kind; 4] = [
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
];

/// Why an object may not be deleted: it is a tier that is built in, or that policies stand in.
async fn stays(store: &dyn Datastore, key: &Key) -> Result<Option<String>, Error> {
    if key.kind != Kind::Tier.stored() {
        return Ok(None);
    }
    if BUILT_IN.contains(&key.name.as_str()) {
        return Ok(Some("the tier is built in and stays".into()));
    }
    for kind in POLICIES {
        for policy in store.list(&kind.stored()).await?.objects {
            let tier = policy.value.pointer("/spec/tier").and_then(Value::as_str);
            if tier == Some(&*key.name) {
                let policy = &policy.key;
                return Ok(Some(format!(
                    "{policy} stands in it: delete or move its policies first"
                )));
            }
        }
    }
    Ok(None)
}

// === impl Args ===

impl Args {
    /// The objects, those of files from the last to the first: what refers to others goes before
    /// them.
    fn keys(&self) -> Result<Vec<Key>, Failure> {
        let Some(text) = &self.kind else {
            let namespace = self.namespace.as_deref().unwrap_or("default");
            let values = read_files(&self.filename, self.recursive, namespace)?;
            let keys = values.iter().rev().map(|value| Key::of(value).map_err(Error::from));
            return Ok(keys.collect::<Result<_, _>>()?);
        };
        let (kind, names) = what(text, &self.names)?;
        if names.is_empty() {
            return Err(Failure::Usage("name the objects to delete, or give their files with -f"));
        }
        let namespace = namespace_of(kind, self.namespace.as_deref());
        Ok(names.iter().map(|name| kind.key(namespace, name)).collect())
    }
}
