//! A state as bytes: what a daemon keeps on disk, to forward with when it starts without an agent.
//!
//! Layout: `MARGAYST`, the version and the length of the rest as big-endian u32 and u64, then a
//! sequence of length-delimited `Update` messages that lead from the empty state to the saved one.

use margay_model::{State, Update};
use prost::Message;

use crate::error::{At, FieldError};
use crate::proto;

const MAGIC: [u8; 8] = *b"MARGAYST";
const SAVED_VERSION: u32 = 1;
const HEADER: usize = 20;

/// The bytes are no state.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// They are something else.
    #[error("not a saved state")]
    Magic,
    /// They were written by a release with another layout.
    #[error("saved with layout {0}, this release reads {SAVED_VERSION}")]
    Version(u32),
    /// They end early or go on too long.
    #[error("{got} bytes follow the header, which promises {promised}")]
    Length {
        /// Bytes that are there.
        got: u64,
        /// Bytes that should be.
        promised: u64,
    },
    /// An update is no protobuf.
    #[error("update {index} cannot be decoded")]
    Decode {
        /// Its place.
        index: usize,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
    /// An update has a bad field.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// The bytes of a state.
pub fn encode_state(state: &State) -> Vec<u8> {
    let mut body = Vec::new();
    for update in State::default().diff(state) {
        body.extend(proto::Update::from(&update).encode_length_delimited_to_vec());
    }
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend(MAGIC);
    out.extend(SAVED_VERSION.to_be_bytes());
    out.extend((body.len() as u64).to_be_bytes());
    out.extend(body);
    out
}

/// The state of these bytes.
pub fn decode_state(bytes: &[u8]) -> Result<State, SavedError> {
    let (magic, rest) = bytes.split_first_chunk().ok_or(SavedError::Magic)?;
    let (version, rest) = rest.split_first_chunk().ok_or(SavedError::Magic)?;
    let (promised, mut body) = rest.split_first_chunk().ok_or(SavedError::Magic)?;
    if *magic != MAGIC {
        return Err(SavedError::Magic);
    }
    let version = u32::from_be_bytes(*version);
    if version != SAVED_VERSION {
        return Err(SavedError::Version(version));
    }
    let (got, promised) = (body.len() as u64, u64::from_be_bytes(*promised));
    if got != promised {
        return Err(SavedError::Length { got, promised });
    }
    let mut state = State::default();
    let mut index = 0;
    while !body.is_empty() {
        let update = proto::Update::decode_length_delimited(&mut body)
            .map_err(|source| SavedError::Decode { index, source })?;
        state.apply(Update::try_from(update).at_index("updates", index)?);
        index += 1;
    }
    Ok(state)
}
