//! `margayctl get`: objects as they are.

use std::io;
use std::path::PathBuf;

use margay_datastore::{Datastore, Error, Key};
use margay_resources::Kind;
use serde_json::Value;

use super::input::read_files;
use super::name::kind;
use super::print::{print, print_mixed};
use super::qos;
use crate::failure::{Failure, with_mend};
use crate::options::Form;

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kind, or KIND/NAME
    #[arg(value_name = "KIND", required_unless_present = "filename")]
    kind: Option<String>,
    /// Names; all without any
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Namespace [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Objects of all namespaces
    #[arg(short, visible_short_alias = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Print the objects that these files or folders name instead; - for standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "kind")]
    filename: Vec<PathBuf>,
    /// Look into the folders of folders too
    #[arg(short = 'R', long, requires = "filename")]
    recursive: bool,
}

/// Prints the objects. Those that are missing are told after the others.
pub(super) async fn run(store: &dyn Datastore, form: Form, args: &Args) -> Result<(), Failure> {
    let keys = match args.wanted()? {
        Wanted::All(kind) => {
            let mut documents = list(store, kind, args).await?;
            if kind == Kind::WorkloadEndpoint {
                qos::show_in_force(store, &mut documents).await;
            }
            return Ok(print(&mut io::stdout().lock(), form, kind, &documents, false)?);
        }
        Wanted::These(keys) => keys,
    };
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for key in &keys {
        match store.get(key).await {
            Ok(object) => {
                let mut document = object.document();
                if key.kind == Kind::WorkloadEndpoint.stored() {
                    qos::show_in_force(store, std::slice::from_mut(&mut document)).await;
                }
                found.push((key, document));
            }
            Err(error) => missing.push(with_mend(&error)),
        }
    }
    let done = found.len();
    write(form, found, keys.len() == 1)?;
    if missing.is_empty() { Ok(()) } else { Err(Failure::Partly { done, failed: missing }) }
}

/// Objects of one kind after the other.
fn write(form: Form, found: Vec<(&Key, Value)>, one: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let (keys, documents): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let mut rest = documents.as_slice();
    for (index, same) in keys.chunk_by(|a, b| a.kind == b.kind).enumerate() {
        let (these, others) = rest.split_at(same.len());
        rest = others;
        let Some(kind) = same.first().and_then(|key| Kind::of_stored(&key.kind)) else { continue };
        match form {
            Form::Table | Form::Wide if index > 0 => io::Write::write_all(&mut out, b"\n")?,
            Form::Json | Form::Yaml if same.len() < documents.len() => {
                return Ok(print_mixed(&mut out, form, &documents)?);
            }
            _ => {}
        }
        print(&mut out, form, kind, these, one)?;
    }
    Ok(())
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

/// What is to be printed.
enum Wanted {
    All(Kind),
    These(Vec<Key>),
}

// === impl Args ===

impl Args {
    fn wanted(&self) -> Result<Wanted, Failure> {
        let Some(text) = &self.kind else {
            let namespace = self.namespace.as_deref().unwrap_or("default");
            let values = read_files(&self.filename, self.recursive, namespace)?;
            let keys = values.iter().map(|value| Key::of(value).map_err(Error::from));
            return Ok(Wanted::These(keys.collect::<Result<_, _>>()?));
        };
        let (kind, names) = what(text, &self.names)?;
        if names.is_empty() {
            return Ok(Wanted::All(kind));
        }
        let namespace = namespace_of(kind, self.namespace.as_deref());
        Ok(Wanted::These(names.iter().map(|name| kind.key(namespace, name)).collect()))
    }
}
