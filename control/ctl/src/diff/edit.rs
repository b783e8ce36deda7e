//! The datastore's content with documents applied or removed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use margay_resources::{Kind, Resource, ResourceError};

use super::DiffError;
use crate::resource::input;

/// What names an object.
type Name = (Kind, String, String);

/// The objects of files, in the order in which they would be applied.
pub(super) fn documents(files: &[PathBuf], recursive: bool) -> Result<Vec<Resource>, DiffError> {
    let values = input::read_files(files, recursive, "default")?;
    let resources = values.iter().map(Resource::from_value);
    Ok(resources.collect::<Result<_, ResourceError>>()?)
}

/// What is there once the documents were applied, or their objects deleted.
pub(super) fn edited(today: &[Resource], documents: Vec<Resource>, delete: bool) -> Vec<Resource> {
    let mut edits: BTreeMap<Name, Option<Resource>> = BTreeMap::new();
    for document in documents {
        let name = name(&document);
        if delete && !edits.contains_key(&name) && !today.iter().any(|r| self::name(r) == name) {
            let (kind, namespace, name) = &name;
            eprintln!("{kind} {namespace}/{name} is not there to be deleted");
        }
        edits.insert(name, (!delete).then_some(document));
    }
    let kept = today.iter().filter(|resource| !edits.contains_key(&name(resource))).cloned();
    let mut all: Vec<_> = kept.collect();
    all.extend(edits.into_values().flatten());
    all
}

fn name(resource: &Resource) -> Name {
    (resource.kind(), resource.namespace().to_owned(), resource.name().to_owned())
}
