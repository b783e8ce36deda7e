//! Offloads of an interface, through the kernel's ethtool netlink (Linux 5.6,
//! `Documentation/networking/ethtool-netlink.rst`).
//!
//! The `ethtool` crate reads features but cannot set them, so the one message that does is here, on
//! top of `genetlink`.

use futures::StreamExt;
use genetlink::{GenetlinkError, GenetlinkHandle};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    Nla, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

use super::{KernelError, Result};

const FEATURES_SET: u8 = 12;
const HEADER: u16 = 1;
const HEADER_DEV_INDEX: u16 = 1;
const WANTED: u16 = 3;
const BITSET_BITS: u16 = 3;
const BITS_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;
const NESTED: u16 = 1 << 15;

/// Why features cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum FeaturesError {
    /// No generic netlink socket, or the kernel has no ethtool family.
    #[error("no ethtool netlink")]
    Netlink(#[source] GenetlinkError),
    /// No socket.
    #[error("no generic netlink socket")]
    Socket(#[source] std::io::Error),
    /// The kernel said no.
    #[error("the kernel refused")]
    Refused(#[source] std::io::Error),
    /// The answer makes no sense.
    #[error("unreadable answer")]
    Answer(#[source] DecodeError),
}

/// `EOPNOTSUPP`: this kernel has no feature of the name.
const UNKNOWN: i32 = -95;

/// Switches features of an interface, each named as the kernel names it (`ethtool -k` shows them).
/// Those that this kernel does not know are passed over, so each is asked for by itself.
///
/// # Errors
/// The kernel has no ethtool netlink, or refuses.
pub(super) async fn set(index: u32, features: &[(&str, bool)]) -> Result<()> {
    let failed = |source| KernelError::Features { index, source };
    let (connection, mut handle, _) =
        genetlink::new_connection().map_err(FeaturesError::Socket).map_err(failed)?;
    let connection = tokio::spawn(connection);
    let outcome = async {
        for (name, on) in features {
            set_one(&mut handle, SetFeatures::new(index, name, *on)).await?;
        }
        Ok(())
    };
    let outcome = outcome.await.map_err(failed);
    connection.abort();
    outcome
}

async fn set_one(
    handle: &mut GenetlinkHandle,
    message: SetFeatures,
) -> std::result::Result<(), FeaturesError> {
    let mut request = NetlinkMessage::from(GenlMessage::from_payload(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut answers = handle.request(request).await.map_err(FeaturesError::Netlink)?;
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(FeaturesError::Answer)?;
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
            && error.raw_code() != UNKNOWN
        {
            return Err(FeaturesError::Refused(error.to_io()));
        }
    }
    Ok(())
}

/// The message `ETHTOOL_MSG_FEATURES_SET`.
#[derive(Clone, Debug)]
struct SetFeatures {
    attributes: Vec<DefaultNla>,
}

// === impl SetFeatures ===

impl SetFeatures {
    fn new(index: u32, feature: &str, on: bool) -> Self {
        let mut bit = vec![DefaultNla::new(BIT_NAME, [feature.as_bytes(), &[0]].concat())];
        if on {
            bit.push(DefaultNla::new(BIT_VALUE, Vec::new()));
        }
        let bits = [nested(BITS_BIT, &bit)];
        let device = [DefaultNla::new(HEADER_DEV_INDEX, index.to_ne_bytes().to_vec())];
        Self {
            attributes: vec![
                nested(HEADER, &device),
                nested(WANTED, &[nested(BITSET_BITS, &bits)]),
            ],
        }
    }
}

fn nested(kind: u16, attributes: &[impl Nla]) -> DefaultNla {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    DefaultNla::new(kind | NESTED, bytes)
}

impl GenlFamily for SetFeatures {
    fn family_name() -> &'static str {
        "ethtool"
    }

    fn command(&self) -> u8 {
        FEATURES_SET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for SetFeatures {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for SetFeatures {
    /// An answer says which features differ from what was wanted; nobody asks.
    fn parse_with_param(_: &[u8], _: GenlHeader) -> std::result::Result<Self, DecodeError> {
        Ok(Self { attributes: Vec::new() })
    }
}
