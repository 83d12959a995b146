//! Where datagrams came from: a number for each address, so that answers find their way.

use std::collections::{HashMap, VecDeque};

use rustix::net::SocketAddrAny;

use crate::limits::SOURCES_MAX;

/// The addresses that datagrams came from last.
#[derive(Debug, Default)]
pub struct Sources {
    numbers: HashMap<SocketAddrAny, u64>,
    /// In the order of their numbers, which have no gaps.
    addresses: VecDeque<SocketAddrAny>,
    forgotten: u64,
    last: Option<(SocketAddrAny, u64)>,
}

impl Sources {
    /// The number of an address; 0 where the sender has none, and can't be answered.
    pub fn number(&mut self, address: Option<SocketAddrAny>) -> u64 {
        let Some(address) = address else { return 0 };
        if let Some((last, number)) = &self.last {
            if *last == address {
                return *number;
            }
        }
        let number = match self.numbers.get(&address) {
            Some(number) => *number,
            None => self.add(address.clone()),
        };
        self.last = Some((address, number));
        number
    }

    fn add(&mut self, address: SocketAddrAny) -> u64 {
        if self.addresses.len() >= SOURCES_MAX {
            if let Some(oldest) = self.addresses.pop_front() {
                self.numbers.remove(&oldest);
                self.forgotten += 1;
                self.last = None;
            }
        }
        self.addresses.push_back(address.clone());
        let number = self.forgotten + self.addresses.len() as u64;
        self.numbers.insert(address, number);
        number
    }

    /// The address with a number, unless it was forgotten since.
    #[must_use]
    pub fn address(&self, number: u64) -> Option<&SocketAddrAny> {
        let index = number.checked_sub(self.forgotten + 1)?;
        self.addresses.get(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddrV4};

    #[test]
    fn numbers_stay_until_too_many_others_came() {
        let address = |port| SocketAddrAny::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        let mut sources = Sources::default();
        assert_eq!(sources.number(None), 0);
        assert_eq!(sources.number(Some(address(1))), 1);
        assert_eq!(sources.number(Some(address(2))), 2);
        assert_eq!(sources.number(Some(address(1))), 1);
        assert_eq!(sources.address(2), Some(&address(2)));
        for port in 3..3 + SOURCES_MAX as u16 {
            sources.number(Some(address(port)));
        }
        assert_eq!(
            (sources.address(0), sources.address(1), sources.address(2)),
            (None, None, None)
        );
        assert_eq!(sources.address(3), Some(&address(3)));
        assert_eq!(sources.addresses.len(), sources.numbers.len());
    }
}
