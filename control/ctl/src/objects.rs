//! Everything that a datastore holds, once.

use std::sync::Arc;

use margay_datastore::{Cursor, Url};
use margay_resources::documents::DocumentReader;
use margay_resources::{Kind, Resource};
use tokio::runtime::Runtime;

/// The datastore cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// No runtime for it.
    #[error("cannot start reading the datastore")]
    Runtime(#[source] std::io::Error),
    /// The datastore's own.
    #[error("cannot read the datastore")]
    Datastore(#[source] margay_datastore::Error),
}

/// Reads all objects of the kinds. Bad documents are left out and logged.
pub(crate) fn read(url: &Url, kinds: &[Kind]) -> Result<Vec<Resource>, ReadError> {
    let runtime = Runtime::new().map_err(ReadError::Runtime)?;
    let listed = runtime.block_on(async {
        let store = margay_datastore::open(url, Arc::new(DocumentReader)).await?;
        // Who watches is told of changes, and need not look for them before each list.
        let _watch = store.watch(&Kind::Pod.stored(), Cursor::default()).await;
        let mut objects = Vec::new();
        for kind in kinds {
            objects.extend(store.list(&kind.stored()).await?.objects);
        }
        Ok(objects)
    });
    let mut resources = Vec::new();
    for object in listed.map_err(ReadError::Datastore)? {
        match Resource::from_value(&object.value) {
            Ok(resource) => resources.push(resource),
            Err(error) => tracing::error!(object = %object.key, "{error}"),
        }
    }
    Ok(resources)
}
