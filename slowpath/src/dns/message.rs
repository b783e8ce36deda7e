//! DNS messages, as far as policy needs them: what was asked, and which addresses names have.

use std::collections::HashMap;
use std::net::IpAddr;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::{Message, ParsedRecord, ToName};
use domain::rdata::{A, Aaaa, Cname};
use margay_model::DomainName;

/// The longest chain of aliases that is followed.
const MAX_ALIASES: usize = 16;

/// What a pod asked, and what an answer says that it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The message's number.
    pub(super) id: u16,
    /// The name; case does not count.
    pub(super) name: DomainName,
    /// The type of records.
    pub(super) kind: Rtype,
}

/// That a name has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// The name.
    pub name: DomainName,
    /// Its address.
    pub addr: IpAddr,
    /// For how long, in seconds.
    pub ttl: u32,
}

/// Aliases and addresses of an answer, by owner.
#[derive(Default)]
struct Records {
    aliases: HashMap<DomainName, (DomainName, u32)>,
    addresses: HashMap<DomainName, Vec<(IpAddr, u32)>>,
}

/// The question in a pod's message; `None` where it asks for no host's name, or for several.
pub(super) fn question(message: &[u8]) -> Option<Question> {
    let message = Message::from_octets(message).ok()?;
    if message.header().qr() { None } else { sole_question(&message) }
}

/// The question in an answer, and the addresses that it gives to the name asked for and to the
/// aliases on the way. `None` where the message is malformed.
pub(super) fn answer(message: &[u8]) -> Option<(Question, Vec<Fact>)> {
    let message = Message::from_octets(message).ok()?;
    let header = message.header();
    let question = if header.qr() { sole_question(&message)? } else { return None };
    if header.rcode() != Rcode::NOERROR || header.tc() {
        // Cut short: who asked asks again over TCP (RFC 2181 §9).
        return Some((question, Vec::new()));
    }
    let mut records = Records::default();
    for record in message.answer().ok()? {
        records.add(&record.ok()?)?;
    }
    let facts = records.facts(&question.name);
    Some((question, facts))
}

fn sole_question(message: &Message<&[u8]>) -> Option<Question> {
    let header = message.header();
    let asked = message.sole_question().ok()?;
    let good = header.opcode() == Opcode::QUERY && asked.qclass() == Class::IN;
    let name = host_name(asked.qname()).filter(|_| good)?;
    Some(Question { id: header.id(), name, kind: asked.qtype() })
}

/// The name, if it is one that a host can have. Labels with a dot or worse inside are shown with
/// escapes, which no host's name has.
fn host_name(name: impl ToName) -> Option<DomainName> {
    name.fmt_with_dot().to_string().parse().ok()
}

// === impl Records ===

impl Records {
    /// Notes a record of the kinds that matter; `None` where it is malformed.
    fn add(&mut self, record: &ParsedRecord<'_, &[u8]>) -> Option<()> {
        if record.class() != Class::IN {
            return Some(());
        }
        let Some(owner) = host_name(record.owner()) else { return Some(()) };
        // Top bit set is zero (RFC 2181 §8).
        let ttl = i32::try_from(record.ttl().as_secs()).map_or(0, i32::unsigned_abs);
        match record.rtype() {
            Rtype::A => {
                let data = record.to_record::<A>().ok()??;
                let addr = IpAddr::V4(data.data().addr());
                self.addresses.entry(owner).or_default().push((addr, ttl));
            }
            Rtype::AAAA => {
                let data = record.to_record::<Aaaa>().ok()??;
                let addr = IpAddr::V6(data.data().addr());
                self.addresses.entry(owner).or_default().push((addr, ttl));
            }
            Rtype::CNAME => {
                let data = record.to_record::<Cname<_>>().ok()??;
                if let Some(target) = host_name(data.data().cname()) {
                    self.aliases.entry(owner).or_insert((target, ttl));
                }
            }
            _ => {}
        }
        Some(())
    }

    /// What the name that was asked for has, and each alias that leads from it to an address. A
    /// record about another name says nothing that was asked.
    fn facts(&self, asked: &DomainName) -> Vec<Fact> {
        let mut chain: Vec<(&DomainName, u32)> = vec![(asked, u32::MAX)];
        while let Some((last, ttl)) = chain.last_mut()
            && let Some((target, alias_ttl)) = self.aliases.get(*last)
        {
            *ttl = *alias_ttl;
            if chain.len() > MAX_ALIASES || chain.iter().any(|(name, _)| *name == target) {
                return Vec::new();
            }
            chain.push((target, u32::MAX));
        }
        let end = chain.last().and_then(|(name, _)| self.addresses.get(*name));
        let mut facts = Vec::new();
        for (addr, ttl) in end.into_iter().flatten() {
            // An alias has the address for as long as all that follows it.
            let mut least = *ttl;
            for (name, ttl) in chain.iter().rev() {
                least = least.min(*ttl);
                facts.push(Fact { name: (*name).clone(), addr: *addr, ttl: least });
            }
        }
        facts
    }
}
