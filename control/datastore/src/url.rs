//! From a URL to a backend.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::dir::Dir;
use crate::documents::Reader;
use crate::error::Error;
use crate::store::Datastore;

/// Which backend, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Url {
    /// `dir:PATH`: a directory of documents.
    Dir(PathBuf),
}

/// The text names no backend that there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nothing follows the colon.
    #[error("the datastore URL {0:?} has no path: write dir:PATH")]
    NoPath(String),
    /// Another scheme, or none.
    #[error("the datastore URL {0:?} is not supported: supported is dir:PATH")]
    Unsupported(String),
}

/// Opens a datastore. `reader` reads and checks the documents that people write.
///
/// # Errors
/// The backend's, when it cannot be reached or read.
pub async fn open(url: &Url, reader: Arc<dyn Reader>) -> Result<Arc<dyn Datastore>, Error> {
    match url {
        Url::Dir(path) => Ok(Arc::new(Dir::open(path, reader).await?)),
    }
}

// === impl Url ===

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        match text.strip_prefix("dir:") {
            Some("") => Err(UrlError::NoPath(text.to_owned())),
            Some(path) => Ok(Self::Dir(path.into())),
            None => Err(UrlError::Unsupported(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scheme_is_answered_with_what_is_supported() {
        let error = "zookeeper:x".parse::<Url>().unwrap_err().to_string();
        assert!(error.contains("supported is dir:PATH"), "{error}");
        assert_eq!("dir:/etc/margay".parse(), Ok(Url::Dir("/etc/margay".into())));
        assert_eq!("dir:".parse::<Url>(), Err(UrlError::NoPath("dir:".into())));
    }
}
