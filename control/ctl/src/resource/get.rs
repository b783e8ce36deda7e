//! `margayctl get`: objects as they are.

use std::io;
use std::sync::Arc;

use margay_datastore::Datastore;
use margay_resources::Kind;
use serde_json::Value;

use super::name::kind;
use super::print::print;
use crate::failure::Failure;
use crate::options::Form;

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kind, or KIND/NAME
    #[arg(value_name = "KIND")]
    kind: String,
    /// Names; all without any
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Namespace [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Objects of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
}

/// Prints the objects.
pub(crate) async fn run(
    store: Arc<dyn Datastore>,
    form: Form,
    args: &Args,
) -> Result<(), Failure> {
    let (kind, names) = what(&args.kind, &args.names)?;
    let documents = if names.is_empty() {
        list(&*store, kind, args).await?
    } else {
        let namespace = namespace_of(kind, args.namespace.as_deref());
        let mut documents = Vec::new();
        for name in &names {
            documents.push(store.get(&kind.key(namespace, name)).await?.document());
        }
        documents
    };
    Ok(print(&mut io::stdout().lock(), form, kind, &documents, names.len() == 1)?)
}

async fn list(store: &dyn Datastore, kind: Kind, args: &Args) -> Result<Vec<Value>, Failure> {
    let namespace = namespace_of(kind, args.namespace.as_deref());
    let listing = store.list(&kind.stored()).await?;
    let wanted = listing.objects.iter().filter(|object| {
        args.all_namespaces || !kind.is_namespaced() || object.key.namespace == namespace
    });
    Ok(wanted.map(|object| object.document()).collect())
}

/// The kind and the names of `KIND NAME…` or `KIND/NAME`.
pub(super) fn what(text: &str, names: &[String]) -> Result<(Kind, Vec<String>), Failure> {
    match text.split_once('/') {
        None => Ok((kind(text)?, names.to_vec())),
        Some((text, name)) if names.is_empty() => Ok((kind(text)?, vec![name.to_owned()])),
        Some(_) => Err(Failure::Usage("give either KIND/NAME or KIND NAME…, not both")),
    }
}

/// The namespace that objects of the kind are looked for in; empty for what lives in none.
pub(super) fn namespace_of(kind: Kind, given: Option<&str>) -> &str {
    if kind.is_namespaced() { given.unwrap_or("default") } else { "" }
}
