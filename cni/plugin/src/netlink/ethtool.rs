//! An interface's offload features, by ethtool's netlink family
//! (Documentation/networking/ethtool-netlink.rst, FEATURES_SET).

use std::io;

use netlink_packet_core::{DecodeError, DefaultNla, Emitable, NLA_F_NESTED, ParseableParametrized};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::socket::NetlinkSocket;

/// A feature, by the name that `ethtool -k` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Generic receive offload; on a veth it makes the end receive by NAPI.
    Gro,
    /// Leaving TCP and UDP checksums to what comes behind the interface.
    TxChecksum,
}

/// ETHTOOL_MSG_FEATURES_SET with one bitset.
#[derive(Clone, Debug)]
struct FeaturesSet {
    attributes: Vec<DefaultNla>,
}

const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_GENL_VERSION: u8 = 1;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
const ETHTOOL_FLAG_OMIT_REPLY: u32 = 1 << 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// Switches features of the interface on or off; those not named stay as they are.
///
/// # Errors
/// The kernel's errno; EOPNOTSUPP when the interface cannot change a feature.
pub(crate) fn set_features(interface: u32, features: &[(Feature, bool)]) -> io::Result<()> {
    let family = family_id()?;
    let mut message = GenlMessage::from_payload(FeaturesSet::new(interface, features));
    message.set_resolved_family_id(family);
    message.finalize();
    NetlinkSocket::open_protocol(NETLINK_GENERIC)?.request(message, 0)
}

/// The number that the kernel gave ethtool's family when it started.
fn family_id() -> io::Result<u16> {
    let mut message = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(FeaturesSet::family_name().to_owned())],
    });
    message.finalize();
    let mut socket = NetlinkSocket::open_protocol(NETLINK_GENERIC)?;
    let ids = socket.collect(message, 0, |answer: GenlMessage<GenlCtrl>| {
        answer.payload.nlas.into_iter().find_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(id) => Some(id),
            _ => None,
        })
    })?;
    ids.first().copied().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// An attribute that holds attributes.
fn nest(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; attributes.buffer_len()];
    attributes.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

// === impl Feature ===

impl Feature {
    fn name(self) -> &'static str {
        match self {
            Self::Gro => "rx-gro",
            Self::TxChecksum => "tx-checksum-ip-generic",
        }
    }

    fn bit(self, on: bool) -> DefaultNla {
        let mut name = self.name().as_bytes().to_vec();
        name.push(0);
        let mut bit = vec![DefaultNla::new(ETHTOOL_A_BITSET_BIT_NAME, name)];
        // A flag: there means on, left out means off.
        if on {
            bit.push(DefaultNla::new(ETHTOOL_A_BITSET_BIT_VALUE, Vec::new()));
        }
        nest(ETHTOOL_A_BITSET_BITS_BIT, &bit)
    }
}

// === impl FeaturesSet ===

impl FeaturesSet {
    fn new(interface: u32, features: &[(Feature, bool)]) -> Self {
        let header = [
            DefaultNla::new(ETHTOOL_A_HEADER_DEV_INDEX, interface.to_ne_bytes().to_vec()),
            DefaultNla::new(ETHTOOL_A_HEADER_FLAGS, ETHTOOL_FLAG_OMIT_REPLY.to_ne_bytes().to_vec()),
        ];
        let bits: Vec<_> = features.iter().map(|(feature, on)| feature.bit(*on)).collect();
        let wanted = [nest(ETHTOOL_A_BITSET_BITS, &bits)];
        Self {
            attributes: vec![
                nest(ETHTOOL_A_FEATURES_HEADER, &header),
                nest(ETHTOOL_A_FEATURES_WANTED, &wanted),
            ],
        }
    }
}

impl GenlFamily for FeaturesSet {
    fn family_name() -> &'static str {
        "ethtool"
    }

    fn command(&self) -> u8 {
        ETHTOOL_MSG_FEATURES_SET
    }

    fn version(&self) -> u8 {
        ETHTOOL_GENL_VERSION
    }
}

impl Emitable for FeaturesSet {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for FeaturesSet {
    /// Replies are omitted, so there is nothing to read; a stray one is empty.
    fn parse_with_param(_: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self { attributes: Vec::new() })
    }
}
