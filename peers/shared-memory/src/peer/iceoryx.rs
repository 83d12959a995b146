//! iceoryx2, publish and subscribe, written and read in place: polled, or woken by its events.

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use super::{Outcome, Receiver, Sender, Setup};

type Service = ipc::Service;

pub struct Sending {
    publisher: Publisher<Service, [u64], ()>,
    notifier: Option<Notifier<Service>>,
    words: usize,
    _node: Node<Service>,
}

pub struct Receiving {
    subscriber: Subscriber<Service, [u64], ()>,
    listener: Option<Listener<Service>>,
    words: usize,
    _node: Node<Service>,
}

fn channel(
    node: &Node<Service>,
    name: &str,
    setup: Setup,
) -> Outcome<iceoryx2::service::port_factory::publish_subscribe::PortFactory<Service, [u64], ()>> {
    Ok(node
        .service_builder(&name.try_into()?)
        .publish_subscribe::<[u64]>()
        .enable_safe_overflow(false)
        .subscriber_max_buffer_size(setup.depth())
        .max_publishers(setup.senders)
        .max_subscribers(1)
        .open_or_create()?)
}

pub fn sender(name: &str, setup: Setup, events: bool) -> Outcome<Sending> {
    let node = NodeBuilder::new().create::<Service>()?;
    let publisher = channel(&node, name, setup)?
        .publisher_builder()
        .initial_max_slice_len(setup.size / 8)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()?;
    let notifier = match events {
        true => {
            let event = node.service_builder(&name.try_into()?).event().open_or_create()?;
            Some(event.notifier_builder().create()?)
        }
        false => None,
    };
    Ok(Sending { publisher, notifier, words: setup.size / 8, _node: node })
}

pub fn receiver(name: &str, setup: Setup, events: bool) -> Outcome<Receiving> {
    let node = NodeBuilder::new().create::<Service>()?;
    let subscriber = channel(&node, name, setup)?.subscriber_builder().create()?;
    let listener = match events {
        true => {
            let event = node.service_builder(&name.try_into()?).event().open_or_create()?;
            Some(event.listener_builder().create()?)
        }
        false => None,
    };
    Ok(Receiving { subscriber, listener, words: setup.size / 8, _node: node })
}

impl Sender for Sending {
    fn send(&mut self, number: u64) -> Outcome<()> {
        let sample = self.publisher.loan_slice_uninit(self.words)?;
        sample.write_from_fn(|at| number.wrapping_add(at as u64)).send()?;
        if let Some(notifier) = &self.notifier {
            notifier.notify()?;
        }
        Ok(())
    }
}

impl Receiver for Receiving {
    fn receive(&mut self) -> Outcome<u64> {
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                let body = sample.payload();
                assert_eq!(body.len(), self.words, "a message of another size");
                let sum = body.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word));
                let words = self.words as u64;
                let first = body[0];
                assert_eq!(sum, first.wrapping_mul(words).wrapping_add(words * (words - 1) / 2));
                return Ok(first);
            }
            match &self.listener {
                Some(listener) => _ = listener.blocking_wait(|_| ())?,
                None => std::hint::spin_loop(),
            }
        }
    }
}

/// Takes away what killed processes left.
pub fn tidy_up() -> Outcome<()> {
    NodeBuilder::new().create::<Service>()?.try_cleanup_dead_nodes();
    Ok(())
}
