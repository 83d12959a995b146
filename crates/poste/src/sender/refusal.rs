//! What a sender refuses before anything is sent, and what it adds to the errors of its end.

use rustix::io::Errno;

use super::Sender;
use crate::capabilities::Priorities;
use crate::error::{Error, Kind};
use crate::outgoing::Outgoing;

impl Sender {
    /// Refuses what this channel cannot carry, before anything is sent.
    #[inline]
    pub(super) fn check(&self, message: &Outgoing<'_>) -> Result<(), Error> {
        let size = message.body.len();
        let limit = self.message_size();
        if size > limit {
            let kind = Kind::TooLarge { size: size as u64, limit: limit as u64 };
            return Err(Error::new(kind, "").with_hint(self.way_out(size)));
        }
        if message.priority > self.traits.priority_max {
            let max = self.traits.priority_max;
            let kind = Kind::Limit {
                name: "priority",
                value: u64::from(max),
                raise_with: format!("use a priority from 0 to {max}"),
            };
            return Err(Error::new(
                kind,
                format!("priority {} is above the highest, {max}", message.priority),
            ));
        }
        let capabilities = &self.mechanism.capabilities;
        if self.options.is_raw() {
            if message.priority > 0 && matches!(capabilities.priorities, Priorities::Window(_)) {
                return Err(refuse("raw bytes carry no priority here"));
            }
            if size == 0 && capabilities.raw_boundaries && !capabilities.raw_empty {
                return Err(refuse("an empty raw message reads as the end of the connection here"));
            }
        }
        if message.message_type.is_some() && !self.options.is_raw() {
            return Err(refuse("only raw System V messages have a type"));
        }
        message.check_descriptors(capabilities.descriptors)
    }

    /// What to do about a message that is too large.
    pub(super) fn way_out(&self, size: usize) -> String {
        // A packet that is larger than a Unix socket's buffer can't be sent; the network's own limit
        // is the same for all.
        let capabilities = &self.mechanism.capabilities;
        let is_of_buffer = |_| capabilities.made_by_listening && !capabilities.network;
        if self.traits.pieces && !self.options.is_raw() {
            format!(
                "send it in several messages (--lines), raw (--raw), or allow it at both ends \
                 (--message-size {size})"
            )
        } else if self.traits.pieces && self.traits.message_size.is_some_and(is_of_buffer) {
            let address = self.address.bare();
            format!("allow it: {address}?capacity={size} (up to net.core.wmem_max), or send less")
        } else if let (true, false, Some(message_size)) = (
            self.mechanism.settings.contains(&"message-size"),
            self.traits.pieces && self.options.is_raw(),
            self.traits.message_size,
        ) {
            // Some count the envelope as a part of the message, and some keep room for it besides.
            let room = self.traits.piece_size.saturating_sub(message_size);
            let head = if self.options.is_raw() { 0 } else { self.head_size(false, false) };
            let need = size.saturating_add(head.saturating_sub(room));
            format!("make the channel anew with a message size of {need}, or send less at once")
        } else {
            "send less at once, or use a mechanism that cuts messages up, such as unix:".to_owned()
        }
    }

    /// Adds what only the sender knows to an error of the end.
    #[cold]
    pub(super) fn explain(&self, error: Error, message: &Outgoing<'_>) -> Error {
        let error = if error.errno() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) {
            let limit = self.traits.piece_size as u64;
            let size = message.body.len() as u64;
            error
                .as_kind(Kind::TooLarge { size, limit: limit.min(size.saturating_sub(1)) })
                .with_hint(self.way_out(message.body.len()))
        } else if message.descriptors.is_empty() {
            error
        } else {
            explain_descriptors(error)
        };
        error.on("send to", &self.address)
    }
}

/// What the kernel's refusals mean where descriptors were to go along.
fn explain_descriptors(error: Error) -> Error {
    let errno = error.errno().map(Errno::from_raw_os_error);
    match errno {
        Some(Errno::PERM) => error
            .as_kind(Kind::Refused)
            .with_hint("the receiver takes no descriptors: it was opened for bodies only"),
        Some(Errno::TOOMANYREFS) => error.as_kind(Kind::Limit {
            name: "RLIMIT_NOFILE",
            value: crate::error::open_files(),
            raise_with: "let the receiver take some first, or: ulimit -n 65536".to_owned(),
        }),
        _ => error,
    }
}

pub(super) fn refuse(detail: &'static str) -> Error {
    Error::new(Kind::NotSupported, detail)
}

#[cfg(test)]
mod tests {
    use crate::{Options, Receiver, Sender};

    #[test]
    fn the_message_size_that_a_hint_names_is_enough() {
        let id = std::process::id();
        for address in [format!("local:hint-{id}"), format!("mq:/poste-test-{id}-hint")] {
            let options = Options::new().message_size(64).create();
            let mut sender = Sender::open_with(&address, &options).unwrap();
            let size = sender.facts().message_size + 1;
            let error = sender.try_send(&vec![7; size]).unwrap_err();
            drop(sender);
            // A channel inside the process went with its ends.
            let _ = crate::remove(&address);
            let (_, rest) = error.hint().split_once("a message size of ").unwrap();
            let named = rest.split(',').next().unwrap().parse().unwrap();
            let options = Options::new().message_size(named).create();
            let _receiver = Receiver::open_with(&address, &options).unwrap();
            let mut sender = Sender::open_with(&address, &options).unwrap();
            sender.try_send(&vec![7; size]).unwrap();
            assert!(sender.try_send(&vec![7; size + 1]).is_err(), "{address}: {named} is too much");
            let _ = crate::remove(&address);
        }
    }
}
