//! Cutting a packet to the size of its path (RFC 791, section 3.2; RFC 8200, section 4.5).
//!
//! Arrives: [`Request::Fragment`](crate::Request::Fragment), the frame as it is to leave. Leaves:
//! frames behind copies of its outer headers, or a drop.

use margay_model::reason::DropReason;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6FragmentHeader, Ipv6FragmentRepr, Ipv6Packet};

use crate::packet::{self, IPV6_LEN, IpView};

/// Length of an IPv6 fragment header.
const FRAGMENT_LEN: usize = 8;
/// This bit of an IPv4 option's type asks for a copy in every fragment.
const COPIED: u8 = 0x80;

/// Cuts the IP packet at `ip_start` into pieces of at most `mtu` bytes. A fragment is cut further
/// and keeps its identification; `ident` is for IPv6 datagrams, which this node alone cuts, and
/// only those that it had put together itself.
///
/// # Errors
/// Refused are packets that forbid it (IPv4 with DF, IPv6 fragments) and sizes that leave no room.
pub fn cut(
    frame: &[u8],
    ip_start: usize,
    mtu: u16,
    ident: u32,
) -> Result<Vec<Vec<u8>>, DropReason> {
    let (outer, packet) = frame.split_at_checked(ip_start).ok_or(DropReason::Malformed)?;
    let view = IpView::parse(packet).ok_or(DropReason::Malformed)?;
    let pieces = if view.whole.len() <= usize::from(mtu) {
        vec![view.whole.to_vec()]
    } else if view.src.is_ipv4() {
        cut_v4(&view, mtu.into())?
    } else {
        cut_v6(&view, mtu.into(), ident)?
    };
    let wrapped = pieces.iter().map(|piece| packet::wrap(outer, piece));
    wrapped.collect::<Option<_>>().ok_or(DropReason::Malformed)
}

fn cut_v4(view: &IpView<'_>, mtu: usize) -> Result<Vec<Vec<u8>>, DropReason> {
    let original = Ipv4Packet::new_unchecked(view.whole);
    if original.dont_frag() {
        return Err(DropReason::TooBig);
    }
    let part = view.part;
    let (base, more_after) = part.map_or((0, false), |p| (p.offset, p.more));
    let (header, mut rest) = view.whole.split_at(view.payload_start);
    let later_header = header_of_later(header);
    let mut header = header;
    let mut offset = base;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let room = mtu.saturating_sub(header.len());
        let len = if rest.len() <= room { rest.len() } else { room & !7 };
        if len == 0 {
            return Err(DropReason::TooBig);
        }
        let (data, left) = rest.split_at(len);
        let more = more_after || !left.is_empty();
        pieces.push(piece_v4(header, data, offset, more).ok_or(DropReason::Malformed)?);
        offset += len;
        rest = left;
        header = &later_header;
    }
    Ok(pieces)
}

fn piece_v4(header: &[u8], data: &[u8], offset: usize, more: bool) -> Option<Vec<u8>> {
    let mut piece = [header, data].concat();
    let total = u16::try_from(piece.len()).ok()?;
    let offset = u16::try_from(offset).ok()?;
    let mut view = Ipv4Packet::new_unchecked(&mut piece);
    view.set_header_len(u8::try_from(header.len()).ok()?);
    view.set_total_len(total);
    view.set_more_frags(more);
    view.set_frag_offset(offset);
    view.fill_checksum();
    Some(piece)
}

/// The header with only those options that every fragment carries (RFC 791, section 3.1). Where the
/// options contradict themselves none is carried.
fn header_of_later(header: &[u8]) -> Vec<u8> {
    let (fixed, mut options) = header.split_at(20);
    let mut out = fixed.to_vec();
    while let Some((&kind, rest)) = options.split_first() {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => rest.first().map_or(0, |len| usize::from(*len)),
        };
        let Some((option, left)) = options.split_at_checked(len).filter(|_| len > 0) else {
            return fixed.to_vec();
        };
        if kind & COPIED != 0 {
            out.extend_from_slice(option);
        }
        options = left;
    }
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn cut_v6(view: &IpView<'_>, mtu: usize, ident: u32) -> Result<Vec<Vec<u8>>, DropReason> {
    let (head_len, named_at) = per_fragment_headers(view).ok_or(DropReason::TooBig)?;
    let (head, mut rest) = view.whole.split_at_checked(head_len).ok_or(DropReason::Malformed)?;
    let next_header = *head.get(named_at).ok_or(DropReason::Malformed)?;
    let room = mtu.saturating_sub(head.len() + FRAGMENT_LEN) & !7;
    if room == 0 {
        return Err(DropReason::TooBig);
    }
    let mut offset = 0;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (data, left) = rest.split_at(rest.len().min(room));
        let mut piece = head.to_vec();
        if let Some(byte) = piece.get_mut(named_at) {
            *byte = IpProtocol::Ipv6Frag.into();
        }
        piece.extend([next_header, 0, 0, 0, 0, 0, 0, 0]);
        let repr =
            Ipv6FragmentRepr { frag_offset: offset / 8, more_frags: !left.is_empty(), ident };
        if let Some(fields) = piece.get_mut(head_len + 2..) {
            repr.emit(&mut Ipv6FragmentHeader::new_unchecked(fields));
        }
        piece.extend_from_slice(data);
        let len = u16::try_from(piece.len() - IPV6_LEN).map_err(|_| DropReason::Malformed)?;
        Ipv6Packet::new_unchecked(&mut piece).set_payload_len(len);
        pieces.push(piece);
        offset += u16::try_from(data.len()).map_err(|_| DropReason::Malformed)?;
        rest = left;
    }
    Ok(pieces)
}

/// Length of the headers that every fragment repeats (up to hop-by-hop options and routing header),
/// and the offset of the byte that names what follows them. `None` for a packet that is a fragment.
fn per_fragment_headers(view: &IpView<'_>) -> Option<(usize, usize)> {
    if view.part.is_some() {
        return None;
    }
    let (mut end, mut named_at, mut repeated) = (IPV6_LEN, 6, (IPV6_LEN, 6));
    while end < view.payload_start {
        let kind = IpProtocol::from(*view.whole.get(named_at)?);
        named_at = end;
        end += 8 + 8 * usize::from(*view.whole.get(end + 1)?);
        if matches!(kind, IpProtocol::HopByHop | IpProtocol::Ipv6Route) {
            repeated = (end, named_at);
        }
    }
    Some(repeated)
}
