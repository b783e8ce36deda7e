//! The encodings that several messages share: addresses, numbers, lists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_model::Mac;

use crate::error::{At, FieldError, Problem};

/// 4 or 16 bytes in network order.
pub fn from_address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub(crate) fn from_addresses(addresses: &[IpAddr]) -> Vec<Vec<u8>> {
    addresses.iter().copied().map(from_address).collect()
}

pub(crate) fn address(bytes: &[u8]) -> Result<IpAddr, Problem> {
    v4(bytes).map(IpAddr::V4).or_else(|_| v6(bytes).map(IpAddr::V6))
}

pub(crate) fn addresses(
    list: Vec<Vec<u8>>,
    field: &'static str,
) -> Result<Vec<IpAddr>, FieldError> {
    list.iter().enumerate().map(|(i, bytes)| address(bytes).at_index(field, i)).collect()
}

pub(crate) fn v4(bytes: &[u8]) -> Result<Ipv4Addr, Problem> {
    <[u8; 4]>::try_from(bytes).map(Into::into).map_err(|_| Problem::AddressLength(bytes.len()))
}

pub(crate) fn v6(bytes: &[u8]) -> Result<Ipv6Addr, Problem> {
    <[u8; 16]>::try_from(bytes).map(Into::into).map_err(|_| Problem::AddressLength(bytes.len()))
}

pub(crate) fn mac(bytes: &[u8]) -> Result<Mac, Problem> {
    <[u8; 6]>::try_from(bytes).map(Mac).map_err(|_| Problem::MacLength(bytes.len()))
}

/// A number of fewer bits than the wire has.
pub(crate) fn small<T: TryFrom<u32>>(value: u32) -> Result<T, Problem> {
    T::try_from(value).map_err(|_| {
        // 8 and 16 bits are the only smaller sizes in the model.
        let max = if size_of::<T>() == 1 { u8::MAX.into() } else { u16::MAX.into() };
        Problem::TooLarge { value: value.into(), max }
    })
}

/// A field that must be there.
pub(crate) fn needed<T>(value: Option<T>, field: &'static str) -> Result<T, FieldError> {
    value.ok_or(Problem::Missing).at(field)
}

/// Every value of a repeated field.
pub(crate) fn each<P, M: TryFrom<P, Error = FieldError>>(
    list: Vec<P>,
    field: &'static str,
) -> Result<Vec<M>, FieldError> {
    list.into_iter().enumerate().map(|(i, p)| M::try_from(p).at_index(field, i)).collect()
}

/// Every name of a repeated field, shared.
pub(crate) fn names<T: From<String>>(list: Vec<String>) -> Vec<T> {
    list.into_iter().map(T::from).collect()
}

/// The message of every value.
pub(crate) fn messages<'a, M: 'a, P: From<&'a M>>(list: impl IntoIterator<Item = &'a M>) -> Vec<P> {
    list.into_iter().map(P::from).collect()
}

/// The strings of names.
pub(crate) fn strings<'a, S: AsRef<str> + 'a>(
    list: impl IntoIterator<Item = &'a S>,
) -> Vec<String> {
    list.into_iter().map(|s| s.as_ref().to_owned()).collect()
}
